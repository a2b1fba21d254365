from pathlib import Path

import msgspec
import pytest

from tidegate.bench.environment import Moment, Probe, judge, pressure_us, steal_and_total_ticks

QUIET = Moment(
    clock_ns=0, load_1_min=0.1, pressure_us=1000, steal_ticks=5, cpu_ticks=1000, frequencies_khz=(1_500_000,)
)
SECOND_LATER = msgspec.structs.replace(QUIET, clock_ns=1_000_000_000, pressure_us=2000, cpu_ticks=1200)


def test_quiet_machine_is_clean() -> None:
    trust = judge(QUIET, SECOND_LATER, switched_share=0.0)
    assert (trust.verdict, trust.reasons, trust.missing) == ("clean", (), ())
    assert trust.pressure_share == pytest.approx(0.001)
    assert trust.steal_share == 0


@pytest.mark.parametrize(
    ("change", "switched_share", "word"),
    [
        ({"pressure_us": 301_000}, 0.0, "waited for a CPU 30%"),
        ({"steal_ticks": 25}, 0.0, "hypervisor took 10%"),
        ({}, 0.5, "50% of the calls"),
    ],
)
def test_each_kind_of_disturbance_is_named(change: dict[str, int], switched_share: float, word: str) -> None:
    trust = judge(QUIET, msgspec.structs.replace(SECOND_LATER, **change), switched_share)
    assert trust.verdict == "disturbed"
    assert len(trust.reasons) == 1
    assert word in trust.reasons[0]


def test_blind_machine_is_unknown_and_says_what_is_missing() -> None:
    blind = Moment(
        clock_ns=0, load_1_min=None, pressure_us=None, steal_ticks=None, cpu_ticks=None, frequencies_khz=None
    )
    trust = judge(blind, blind, switched_share=None)
    assert trust.verdict == "unknown"
    assert trust.missing == ("CPU pressure", "steal", "involuntary context switches", "CPU frequency")
    assert trust.pressure_share is None


def test_disturbance_seen_by_one_sensor_outweighs_a_missing_one() -> None:
    half_blind = msgspec.structs.replace(SECOND_LATER, pressure_us=None)
    assert judge(QUIET, half_blind, switched_share=0.5).verdict == "disturbed"


@pytest.fixture
def raspberry(tmp_path: Path) -> Path:
    files = {
        "proc/cpuinfo": "processor : 0\nBogoMIPS : 108.00\n\nModel : Raspberry Pi 5 Model B Rev 1.0\n",
        "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
        "proc/meminfo": "MemTotal:        8245416 kB\nMemFree: 1 kB\n",
        "proc/loadavg": "0.42 0.30 0.20 1/200 1234\n",
        "proc/stat": "cpu  10 0 20 300 4 0 1 2 0 0\ncpu0 5 0 10 150 2 0 0 1 0 0\n",
        "proc/pressure/cpu": "some avg10=0.00 avg60=0.00 avg300=0.00 total=12345\nfull avg10=0.00 total=0\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "ondemand\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1500000\n",
        "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor": "ondemand\n",
        "sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq": "2400000\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path


def test_what_a_raspberry_pi_tells(raspberry: Path) -> None:
    probe = Probe(raspberry)
    machine = probe.machine()
    assert machine.board == "Raspberry Pi 5 Model B Rev 1.0"
    assert machine.governors == ("ondemand",)
    assert machine.memory_bytes == 8_245_416 * 1024
    assert machine.packages["numpy"]
    moment = probe.moment()
    assert (moment.load_1_min, moment.pressure_us, moment.steal_ticks, moment.cpu_ticks) == (0.42, 12345, 2, 337)
    assert moment.frequencies_khz == (1_500_000, 2_400_000)


def test_a_machine_without_these_files_names_them(tmp_path: Path) -> None:
    probe = Probe(tmp_path)
    assert {"CPU model", "memory size", "CPU frequency governor"} <= set(probe.machine().missing)
    moment = probe.moment()
    assert moment.pressure_us is None
    assert moment.steal_ticks is None
    assert moment.frequencies_khz is None


@pytest.mark.parametrize("text", ["", "cpu  1 2 3\n", "intr 5\n"])
def test_stat_without_steal_column_is_not_taken_as_zero(text: str) -> None:
    assert steal_and_total_ticks(text) == (None, None)


def test_pressure_of_an_old_kernel_is_not_taken_as_zero() -> None:
    assert pressure_us("") is None
