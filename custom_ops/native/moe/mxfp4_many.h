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
  static constexpr size_t kRows = vectors * V::kLanes;

  PieceOfRows(const Mxfp4Rows& rows, size_t row, size_t begin, size_t end)
      : stride(rows.width / kBlock * kBlockBytes) {
    const size_t blocks = rows.width / kBlock;
    const size_t next = (row + kRows) * blocks + begin * kRows;
    bytes_ahead_ = rows.blocks + next * kBlockBytes;
    scales_ahead_ = rows.scales + next;
    for (size_t v = 0; v < vectors; ++v) {
      const size_t first = (row + v * V::kLanes) * blocks + begin;
      bytes[v] = rows.blocks + first * kBlockBytes;
      scales[v] = V::scales(rows.scales + first, blocks, end - begin);
    }
  }

  // The next panel, which follows in memory, is asked for while this one is in use: no hardware
  // prefetcher follows pieces of rows. Each block that is decoded asks for its share.
  void ask_ahead(size_t block) const {
    constexpr int kSecondLevel = 2;  // cache, as __builtin_prefetch names it
    const uint8_t* ahead = bytes_ahead_ + block * kRows * kBlockBytes;
    for (size_t i = 0; i < kRows * kBlockBytes; i += 64)
      __builtin_prefetch(ahead + i, 0, kSecondLevel);
    __builtin_prefetch(scales_ahead_ + block * kRows, 0, kSecondLevel);
  }

  size_t stride;  // bytes from one row to the next
  const uint8_t* bytes[vectors];
  typename V::Scales scales[vectors];

 private:
  const uint8_t* bytes_ahead_;  // the piece's share of the next panel
  const uint8_t* scales_ahead_;
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
    auto* other = panel + (Tile::kDecodesAhead ? Tile::kBlocks : 0);
    Place here(blocks, 0, 0);
    Piece piece(rows, here.row, here.begin, here.end());
    size_t decoded = 0;  // blocks of the piece
    while (here.row < rows.count) {
      for (; decoded < here.count; ++decoded) Tile::decode(piece, decoded, panel[decoded]);
      decoded = 0;
      const Place following = here.following(blocks);
      const bool is_last = following.row >= rows.count;
      const Piece next =
          is_last ? piece : Piece(rows, following.row, following.begin, following.end());
      for (size_t t = 0; t < tokens.count; t += Tile::kTokens) {
        const TokenBlock* tile = x + t / Tile::kTokens * blocks + here.begin;
        const bool more = t + Tile::kTokens < tokens.count;
        const Sums<Tile> sums{panel,
                              tile,
                              here.count,
                              here.begin > 0,
                              out + t * stride + here.row,
                              stride,
                              more ? tile + blocks : x + following.begin};
        if constexpr (Tile::kDecodesAhead) {
          if (t == 0 && tokens.count >= Tile::kTokens && !is_last) {
            decoded = following.count < here.count ? following.count : here.count;
            Tile::multiply_ahead(piece, sums, next, decoded, other);
            continue;
          }
        }
        multiply_tile<Tile::kTokens>(piece, tokens.count - t, sums);
      }
      here = following;
      piece = next;
      PanelBlock* const swapped = panel;
      panel = other;
      other = swapped;
    }
  }

  // Where a piece lies: `count` blocks of the rows from `row` on.
  struct Place {
    Place(size_t blocks, size_t row, size_t begin)
        : row(row),
          begin(begin),
          count(blocks - begin < Tile::kBlocks ? blocks - begin : Tile::kBlocks) {}
    size_t end() const { return begin + count; }
    Place following(size_t blocks) const {
      return end() < blocks ? Place(blocks, row, end()) : Place(blocks, row + Tile::kRows, 0);
    }

    size_t row, begin, count;
  };

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
