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
//   // Blocks [begin, end) of the rows from `row` on.
//   static void decode(const Mxfp4Rows& rows, size_t row, size_t begin, size_t end,
//                      PanelBlock* panel);
//   // Writes the sums over `blocks` blocks, or adds them to what `out` holds.
//   template <size_t tokens, bool add>
//   static void multiply(const PanelBlock* panel, const TokenBlock* x, size_t blocks, float* out,
//                        size_t stride);
//
// Included by files that are compiled for one level, each with a Tile of its own in an anonymous
// namespace: so every copy of this code stays in its file.
#pragma once

#include "machine/activations.h"
#include "moe/mxfp4.h"

namespace gptoss {

template <class Tile>
struct Mxfp4Many {
  using TokenBlock = typename Tile::TokenBlock;
  using PanelBlock = typename Tile::PanelBlock;

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

  static size_t scratch_bytes(size_t, size_t) { return Tile::kBlocks * sizeof(PanelBlock); }

  static void multiply(const Mxfp4Rows& rows, const PackedTokens& tokens, std::byte* scratch,
                       float* out, size_t stride) {
    const size_t blocks = rows.width / kBlock;
    const auto* x =
        reinterpret_cast<const TokenBlock*>(tokens.data) + tokens.first / Tile::kTokens * blocks;
    auto* panel = reinterpret_cast<PanelBlock*>(scratch);
    for (size_t r = 0; r < rows.count; r += Tile::kRows) {
      for (size_t begin = 0; begin < blocks; begin += Tile::kBlocks) {
        const size_t left = blocks - begin, count = left < Tile::kBlocks ? left : Tile::kBlocks;
        Tile::decode(rows, r, begin, begin + count, panel);
        const Piece piece{panel, count, begin > 0};
        for (size_t t = 0; t < tokens.count; t += Tile::kTokens) {
          multiply_tile<Tile::kTokens>(piece, tokens.count - t,
                                       x + t / Tile::kTokens * blocks + begin, out + t * stride + r,
                                       stride);
        }
      }
    }
  }

  struct Piece {
    const PanelBlock* panel;
    size_t blocks;
    bool add;
  };

  // A last tile has fewer tokens, and takes less time.
  template <size_t tokens>
  static void multiply_tile(const Piece& piece, size_t count, const TokenBlock* x, float* out,
                            size_t stride) {
    if constexpr (tokens > 1) {
      if (count < tokens) return multiply_tile<tokens - 1>(piece, count, x, out, stride);
    }
    if (piece.add)
      return Tile::template multiply<tokens, true>(piece.panel, x, piece.blocks, out, stride);
    Tile::template multiply<tokens, false>(piece.panel, x, piece.blocks, out, stride);
  }

  static constexpr Mxfp4Kernel kKernel = {Tile::kTokens, packed_bytes, pack, scratch_bytes,
                                          multiply};
};

}  // namespace gptoss
