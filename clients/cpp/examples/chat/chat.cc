// gptoss-chat PACKAGE MESSAGE [LIBRARY]: applies the package's chat template to a message and
// streams the answer. The tokenizer is that of onnxruntime-genai; its wheel ships no header, so the
// few functions used are declared here.
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <iostream>

#include "gptoss.h"

extern "C" {
struct OgaResult;
struct OgaSequences;
struct OgaTokenizer;
struct OgaTokenizerStream;
const char* OgaResultGetError(const OgaResult*);
void OgaDestroyResult(OgaResult*);
void OgaDestroyString(const char*);
OgaResult* OgaCreateTokenizerFromPath(const char* folder, OgaTokenizer** out);
void OgaDestroyTokenizer(OgaTokenizer*);
OgaResult* OgaTokenizerApplyChatTemplate(const OgaTokenizer*, const char* chat_template,
                                         const char* messages, const char* tools,
                                         bool add_generation_prompt, const char** out);
OgaResult* OgaCreateSequences(OgaSequences** out);
void OgaDestroySequences(OgaSequences*);
OgaResult* OgaTokenizerEncode(const OgaTokenizer*, const char* text, OgaSequences*);
size_t OgaSequencesGetSequenceCount(const OgaSequences*, size_t sequence);
const int32_t* OgaSequencesGetSequenceData(const OgaSequences*, size_t sequence);
OgaResult* OgaCreateTokenizerStream(const OgaTokenizer*, OgaTokenizerStream** out);
void OgaDestroyTokenizerStream(OgaTokenizerStream*);
OgaResult* OgaTokenizerStreamDecode(OgaTokenizerStream*, int32_t token, const char** out);
}

using namespace gptoss;
constexpr size_t kTokenizerLimit = 64'000'000;  // bytes of one file
namespace fs = std::filesystem;

static void check(OgaResult* result) {
  if (result == nullptr) return;
  const std::string line = OgaResultGetError(result);
  OgaDestroyResult(result);
  throw Error("tokenizer: " + line);
}

template <class T, void (*Destroy)(T*)>
struct Destroyer {
  void operator()(T* object) const { Destroy(object); }
};
template <class T, void (*Destroy)(T*)>
using Owned = std::unique_ptr<T, Destroyer<T, Destroy>>;

// A temporary folder with the tokenizer's files and a genai_config.json, without which the library
// opens none.
struct TokenizerFolder {
  explicit TokenizerFolder(const Package& package) {
    std::string name = fs::temp_directory_path() / "gptoss-chat-XXXXXX";
    expect(mkdtemp(name.data()) != nullptr, name, "no way to make it",
           "a writable folder for temporary files");
    path = name;
    // Copies: writing to a link would write to the package.
    for (const std::string& file : package.tokenizer_files) {
      const std::string bytes = read_file(file_in(package.folder, file), kTokenizerLimit);
      std::ofstream(path / file, std::ios::binary) << bytes;
    }
    std::ofstream(path / "genai_config.json")
        << R"({"model": {"type": "gptoss", "context_length": )" << package.longest
        << R"(, "vocab_size": )" << package.vocab << R"(}, "search": {}})";
  }
  ~TokenizerFolder() { fs::remove_all(path); }
  TokenizerFolder(const TokenizerFolder&) = delete;
  fs::path path;
};

class Tokenizer {
 public:
  explicit Tokenizer(const Package& package) {
    const TokenizerFolder folder(package);
    OgaTokenizer* tokenizer = nullptr;
    check(OgaCreateTokenizerFromPath(folder.path.c_str(), &tokenizer));
    tokenizer_.reset(tokenizer);
    OgaTokenizerStream* stream = nullptr;
    check(OgaCreateTokenizerStream(tokenizer, &stream));
    stream_.reset(stream);
  }

  // The tokens of a chat with one message of the user, up to where the answer begins.
  Tokens prompt(const std::string& message) const {
    const std::string content = json_string(message);
    const std::string messages = R"([{"role": "user", "content": )" + content + "}]";
    const char* text = nullptr;
    check(OgaTokenizerApplyChatTemplate(tokenizer_.get(), nullptr, messages.c_str(), nullptr, true,
                                        &text));
    const Owned<const char, OgaDestroyString> owned(text);
    OgaSequences* sequences = nullptr;
    check(OgaCreateSequences(&sequences));
    const Owned<OgaSequences, OgaDestroySequences> ids(sequences);
    check(OgaTokenizerEncode(tokenizer_.get(), text, sequences));
    const int32_t* first = OgaSequencesGetSequenceData(sequences, 0);
    return Tokens(first, first + OgaSequencesGetSequenceCount(sequences, 0));
  }

  // What a token makes certain of the text: a character may need several.
  std::string decode(int64_t token) {
    const char* text = nullptr;
    check(OgaTokenizerStreamDecode(stream_.get(), static_cast<int32_t>(token), &text));
    return text;
  }

 private:
  Owned<OgaTokenizer, OgaDestroyTokenizer> tokenizer_;
  Owned<OgaTokenizerStream, OgaDestroyTokenizerStream> stream_;
};

int main(int count, char** words) try {
  const bool is_usage = count == 3 || count == 4;
  expect(is_usage, "arguments", std::to_string(count - 1), "PACKAGE MESSAGE [LIBRARY]");
  Options options;
  if (count == 4) options.library = words[3];
  const Package package(words[1]);
  Tokenizer tokenizer(package);
  const Tokens prompt = tokenizer.prompt(words[2]);
  const Session session(package, options);
  std::cerr << session.kernels << " kernels (" << printable(session.reason) << ")\n";
  constexpr int64_t kLongestAnswer = 200;
  const int64_t room = static_cast<int64_t>(prompt.size()) + kLongestAnswer;
  KVCache cache(session, std::min(room, package.longest));
  const Tokens& ends = package.eos_tokens;
  const bool is_terminal = isatty(STDOUT_FILENO);
  session.generate(cache, prompt, Sampling(), kLongestAnswer, [&](int64_t token) {
    if (std::find(ends.begin(), ends.end(), token) != ends.end()) return true;
    const std::string text = tokenizer.decode(token);
    // A model may say what steers a terminal; a file gets its text as it is.
    std::cout << (is_terminal ? printable(text, "\n\t") : text) << std::flush;
    return true;
  });
  std::cout << "\n";
  return 0;
} catch (const std::exception& error) {
  std::cerr << "gptoss-chat: " << error_line(error) << "\n";
  return 2;
}
