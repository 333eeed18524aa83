// MXFP4 times many tokens, blocked for the caches, whatever the vector width and the kind of
// product.
//
// Tokens lie in tiles that multiply together. A panel of rows is decoded by pieces of some blocks,
// which stay in the first-level cache while every tile meets them; the sums of a tile and a panel
// stay in registers for a piece, and in `out` from one piece to the next. So a token's sums depend
// neither on its tile nor on the tokens beside it. A Tile says how:
//
//   static constexpr size_t kTokens, kRows, kBlocks;  // of a tile, a panel and a piece
//   struct TokenBlock;  // one block of kTokens tokens
//   struct PanelBlock;  // one block of kRows rows, decoded
//   static void pack(const float* x, size_t token, TokenBlock& block);  // 32 values
//   // A piece as it lies in memory: blocks [begin, end) of the rows from `row` on.
//   struct Piece { Piece(const Mxfp4Rows& rows, size_t row, size_t begin, size_t end); };
//   static void decode(const Piece& piece, size_t block, PanelBlock& decoded);
//   template <size_t tokens>
//   static void multiply(const Piece& piece, const Sums<Tile>& sums);
//   // Whether it has this, too, which decodes blocks [0, count) of the next piece meanwhile.
//   static constexpr bool kDecodesAhead;
//   static void multiply_ahead(const Piece& piece, const Sums<Tile>& sums, const Piece& next,
//                              size_t count, PanelBlock* panel);
//
// Included by files that are compiled for one level, each with a Tile of its own in an anonymous
// namespace: so every copy of this code stays in its file.
#pragma once

#include "machine/activations.h"
#include "moe/mxfp4.h"

namespace gptoss {

// What a tile of tokens adds up for a piece. Tokens may come from memory: a Tile asks for the next.
template <class Tile>
struct Sums {
  const typename Tile::PanelBlock* panel;
  const typename Tile::TokenBlock* x;
  size_t blocks;
  bool add;  // to what `out` holds
  float* out;
  size_t stride;
  const typename Tile::TokenBlock* next;  // tokens that will multiply afterwards
};

// A piece where it lies in the mapped file: `vectors` times V::kLanes rows, and V::Scales of each.
template <class V, size_t vectors>
struct PieceOfRows {
  PieceOfRows(const Mxfp4Rows& rows, size_t row, size_t begin, size_t end)
      : stride(rows.width / kBlock * kBlockBytes) {
    const size_t blocks = rows.width / kBlock;
    for (size_t v = 0; v < vectors; ++v) {
      const size_t first = (row + v * V::kLanes) * blocks + begin;
      bytes[v] = rows.blocks + first * kBlockBytes;
      scales[v] = V::scales(rows.scales + first, blocks, end - begin);
    }
  }

  size_t stride;  // bytes from one row to the next
  const uint8_t* bytes[vectors];
  typename V::Scales scales[vectors];
};

template <class Tile>
struct Mxfp4Many {
  using TokenBlock = typename Tile::TokenBlock;
  using PanelBlock = typename Tile::PanelBlock;
  using Piece = typename Tile::Piece;

  static size_t tiles_of(size_t tokens) { return (tokens + Tile::kTokens - 1) / Tile::kTokens; }

  static size_t packed_bytes(size_t tokens, size_t width) {
    return tiles_of(tokens) * (width / kBlock) * sizeof(TokenBlock);
  }

  static void pack(const float* x, size_t first, size_t count, size_t width, size_t token,
                   std::byte* packed) {
    TokenBlock* block = reinterpret_cast<TokenBlock*>(packed) +
                        token / Tile::kTokens * (width / kBlock) + first / kBlock;
    for (size_t i = 0; i < count; i += kBlock) Tile::pack(x + i, token % Tile::kTokens, *block++);
  }

  static size_t scratch_bytes(size_t, size_t) {
    return (Tile::kDecodesAhead ? 2 : 1) * Tile::kBlocks * sizeof(PanelBlock);
  }

  static void multiply(const Mxfp4Rows& rows, const PackedTokens& tokens, std::byte* scratch,
                       float* out, size_t stride) {
    const size_t blocks = rows.width / kBlock;
    const auto* x =
        reinterpret_cast<const TokenBlock*>(tokens.data) + tokens.first / Tile::kTokens * blocks;
    auto* panel = reinterpret_cast<PanelBlock*>(scratch);
    const auto length = [&](size_t begin) {
      return blocks - begin < Tile::kBlocks ? blocks - begin : Tile::kBlocks;
    };
    const auto piece_of = [&](size_t row, size_t begin) {
      return Piece(rows, row, begin, begin + length(begin));
    };
    Piece piece = piece_of(0, 0);
    size_t decoded = 0;  // blocks of this piece, while the one before was multiplied
    for (size_t r = 0, begin = 0; r < rows.count;) {
      const size_t count = length(begin);
      for (; decoded < count; ++decoded) Tile::decode(piece, decoded, panel[decoded]);
      const bool end = begin + count == blocks;
      const size_t next_r = end ? r + Tile::kRows : r, next_begin = end ? 0 : begin + count;
      const auto sums = [&](size_t t) {
        const TokenBlock* here = x + t / Tile::kTokens * blocks + begin;
        const TokenBlock* next = t + Tile::kTokens < tokens.count ? here + blocks : x + next_begin;
        return Sums<Tile>{panel, here, count, begin > 0, out + t * stride + r, stride, next};
      };
      size_t t = 0;
      decoded = 0;
      Piece next = piece;
      PanelBlock* next_panel = panel;
      if (next_r < rows.count) {
        next = piece_of(next_r, next_begin);
        if constexpr (Tile::kDecodesAhead) {
          auto* first = reinterpret_cast<PanelBlock*>(scratch);
          next_panel = panel == first ? first + Tile::kBlocks : first;
          if (tokens.count >= Tile::kTokens) {
            const size_t some = length(next_begin);
            decoded = some < count ? some : count;
            Tile::multiply_ahead(piece, sums(0), next, decoded, next_panel);
            t = Tile::kTokens;
          }
        }
      }
      for (; t < tokens.count; t += Tile::kTokens) {
        multiply_tile<Tile::kTokens>(piece, tokens.count - t, sums(t));
      }
      piece = next;
      panel = next_panel;
      r = next_r;
      begin = next_begin;
    }
  }

  // A last tile has fewer tokens, and takes less time.
  template <size_t tokens>
  static void multiply_tile(const Piece& piece, size_t count, const Sums<Tile>& sums) {
    if constexpr (tokens > 1) {
      if (count < tokens) return multiply_tile<tokens - 1>(piece, count, sums);
    }
    Tile::template multiply<tokens>(piece, sums);
  }

  static constexpr Mxfp4Kernel kKernel = {Tile::kTokens, packed_bytes, pack, scratch_bytes,
                                          multiply};
};

}  // namespace gptoss
