"""The words of the task: labels, confusable words, ordinary words, sentences.

Homophones of a label (``know``, ``write``, ``whether`` ...) appear nowhere: no
model could tell them from the label, so as ``unknown`` they would only do harm.
"""

from __future__ import annotations

SILENCE = "silence"
UNKNOWN = "unknown"

COMMANDS: tuple[str, ...] = (
    "yes",
    "no",
    "up",
    "down",
    "left",
    "right",
    "stop",
    "go",
    "on",
    "off",
    "weather",
    "music",
)

LABELS: tuple[str, ...] = (SILENCE, UNKNOWN, *COMMANDS)

CONFUSABLE_WORDS: tuple[str, ...] = tuple(
    """
    yet year guess less chess dress yesterday yell yen mess
    note snow now new nose nor mow toe low show row so
    cup pup app us of upper hut pub but hub cap
    town dawn done noun don dumb brown gown drown done
    lift let leaf laughed less loft lend lent theft
    light rice ride white ripe rather rough bright rate rat
    top step shop stomp stock stuff stab spot star store
    goal goat ago gone gum good got ghost girl dough
    own won an in aunt gone one warn don
    cough office often offer awful author soft of orphan
    whatever wetter feather leather wither better letter never wedding water
    museum mucus muse muesli basic mule moose using physics magic amusing
    """.split()  # noqa: SIM905
)

ORDINARY_WORDS: tuple[str, ...] = tuple(
    """
    house water table chair window door kitchen garden street river mountain
    bread butter cheese apple orange banana coffee tea milk sugar salt pepper
    red green blue yellow black white purple brown silver gold
    zero two three four five six seven eight nine ten eleven twelve twenty hundred
    monday tuesday wednesday thursday friday saturday sunday morning evening night
    january march april june july august winter summer autumn spring
    mother father sister brother uncle doctor teacher driver farmer captain
    dog cat bird horse cow sheep marvin lion tiger rabbit
    happy angry quiet loud quick slow early late heavy little
    run walk jump swim sleep eat drink read speak listen
    play light help lamp open close lock pause next back
    computer machine paper pencil letter picture camera station number question
    follow forward backward learn visual wow sheila tree bed
    city country village island forest beach market hospital library theatre
    please thanks hello goodbye maybe sorry perhaps always never sometimes
    big small long short round square broken clean dirty empty
    think bring catch build begin carry answer travel remember believe
    air fire earth stone metal glass wood cotton leather plastic
    every under over between behind across around before after without
    ship train plane bicycle engine wheel bottle basket hammer ladder
    the and with from that this have they been were
    he she you me them his her our your its
    time day week month place thing world hand face eye
    cost share price money bank office ticket border garage message
    volume channel temperature heating alarm timer kettle curtain ceiling bathroom
    """.split()  # noqa: SIM905
)

TEST_ONLY_WORDS: tuple[str, ...] = tuple(
    """
    candle pocket thunder planet violin shadow corner lemon pillow marble
    bucket ribbon dinner copper fountain harvest jacket minute nephew parcel
    log cot rope mouse dust nest size loop stack robe
    """.split()  # noqa: SIM905
)

SENTENCES: tuple[str, ...] = (
    "the old man walked slowly along the river bank",
    "she bought three apples and a loaf of bread",
    "we will meet at the station after lunch",
    "my brother plays football every saturday",
    "the children were laughing in the garden",
    "please bring me a cup of tea with milk",
    "they travelled through the mountains by train",
    "he could hear birds singing in the trees",
    "the library closes early in the winter",
    "i have never seen such a beautiful beach",
    "her letter arrived just before christmas",
    "our neighbours bought a small blue car",
    "the doctor asked him several questions",
    "fresh coffee smells wonderful in the morning",
    "can you tell me what time it is",
    "the cat slept under the kitchen table",
    "a large ship was leaving the harbour",
    "some people like cheese with their fruit",
    "it took us almost seven hours to get home",
    "the teacher wrote a number beside each picture",
    "we need another chair for the meeting",
    "he answered the question very quietly",
    "there is a lot of paper inside this box",
    "the farmer keeps his horses behind the house",
    "she remembered every word of the poem",
    "turn the lamp a little towards me please",
    "these shoes are far too expensive",
    "the engine made a strange noise last night",
    "let me think about that for a minute",
    "many small boats were waiting near the bridge",
    "the soup tastes better with a little pepper",
    "they built a wooden fence around the field",
)

TRAIN_UNKNOWN_WORDS: tuple[str, ...] = tuple(
    sorted(set(CONFUSABLE_WORDS + ORDINARY_WORDS) - set(COMMANDS) - set(TEST_ONLY_WORDS))
)
