#include <cstdint>
__global__ void k90(uint32_t* p, const uint4* g, const __grid_constant__ int dummy, const void* map) {
  __shared__ __align__(1024) uint4 s[1024]; __shared__ uint64_t bar;
  unsigned sa = (unsigned)__cvta_generic_to_shared(s), ba=(unsigned)__cvta_generic_to_shared(&bar);
  asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" :: "r"(ba));
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], 1024;" :: "r"(ba));
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], 1024, [%2];" :: "r"(sa),"l"(g),"r"(ba) : "memory");
  asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2,%3}], [%4];" :: "r"(sa),"l"(map),"r"(0),"r"(0),"r"(ba):"memory");
  asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], 1024;" :: "l"(p), "r"(sa) : "memory");
  asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%1,%2}], [%3];" :: "l"(map),"r"(0),"r"(0),"r"(sa):"memory");
  asm volatile("cp.async.bulk.commit_group;"); asm volatile("cp.async.bulk.wait_group.read 0;");
  asm volatile("{.reg .pred q; mbarrier.try_wait.parity.shared::cta.b64 q, [%0], 0;}" :: "r"(ba));
  float d[4]={0,0,0,0}; uint64_t da=sa>>4, db=sa>>4;
  asm volatile("wgmma.fence.sync.aligned;");
  asm volatile("wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%0,%1,%2,%3}, %4, %5, 1, 1, 1, 0, 0;" : "+f"(d[0]),"+f"(d[1]),"+f"(d[2]),"+f"(d[3]) : "l"(da),"l"(db));
  asm volatile("wgmma.mma_async.sync.aligned.m64n8k8.f32.tf32.tf32 {%0,%1,%2,%3}, %4, %5, 1, 1, 1;" : "+f"(d[0]),"+f"(d[1]),"+f"(d[2]),"+f"(d[3]) : "l"(da),"l"(db));
  asm volatile("wgmma.commit_group.sync.aligned;"); asm volatile("wgmma.wait_group.sync.aligned 0;");
  asm volatile("{.reg .b32 r; stmatrix.sync.aligned.m8n8.x2.shared.b16 [%0], {%1,%2};}" :: "r"(sa), "r"(__float_as_uint(d[0])), "r"(__float_as_uint(d[1])));
  p[threadIdx.x]=__float_as_uint(d[0]+d[1]+d[2]+d[3]);
}
__global__ void k90r(uint32_t* p) { __shared__ __align__(1024) uint4 s[1024]; unsigned sa = (unsigned)__cvta_generic_to_shared(s); float d[4]={0,0,0,0}; uint64_t db=sa>>4; uint32_t a0=p[0],a1=p[1],a2=p[2],a3=p[3];
  asm volatile("wgmma.fence.sync.aligned;");
  asm volatile("wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%0,%1,%2,%3}, {%5,%6,%7,%8}, %4, 1, 1, 1, 0;" : "+f"(d[0]),"+f"(d[1]),"+f"(d[2]),"+f"(d[3]) : "l"(db),"r"(a0),"r"(a1),"r"(a2),"r"(a3));
  asm volatile("wgmma.commit_group.sync.aligned;"); asm volatile("wgmma.wait_group.sync.aligned 0;");
  p[threadIdx.x]=__float_as_uint(d[0]+d[1]+d[2]+d[3]); }
