#pragma once
// Host memory: blocks come from the system in large aligned pieces, are advised for huge pages and kept for reuse by size class.
#include <cstddef>

namespace libmoe {

// Straight from and to the system. Gives the pool's unused blocks back before it throws ERR_LIBMOE_OUT_OF_MEMORY.
void* map_block(size_t bytes);
void unmap_block(void* data, size_t bytes);

// Pooled. 64-byte aligned, 2 MB aligned from 2 MB on. Contents undefined.
void* pool_allocate(size_t bytes);
void pool_release(void* data, size_t bytes);
// Gives every unused block back to the system.
void pool_trim();

}  // namespace libmoe
