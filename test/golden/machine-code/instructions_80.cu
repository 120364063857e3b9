#include <cstdint>
__global__ void k80(uint32_t* p, const uint4* g) {
  __shared__ __align__(16) uint4 s[64];
  unsigned sa = (unsigned)__cvta_generic_to_shared(&s[threadIdx.x]);
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" :: "r"(sa), "l"(g + threadIdx.x));
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" :: "r"(sa), "l"(g + threadIdx.x+64));
  asm volatile("cp.async.commit_group;"); asm volatile("cp.async.wait_group 0;");
  uint32_t a0,a1,a2,a3;
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(a0),"=r"(a1),"=r"(a2),"=r"(a3) : "r"(sa));
  uint32_t b0,b1;
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];" : "=r"(b0),"=r"(b1) : "r"(sa));
  float d[4] = {1,2,3,4};
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};" : "+f"(d[0]),"+f"(d[1]),"+f"(d[2]),"+f"(d[3]) : "r"(a0),"r"(a1),"r"(a2),"r"(a3),"r"(b0),"r"(b1));
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};" : "+f"(d[0]),"+f"(d[1]),"+f"(d[2]),"+f"(d[3]) : "r"(a0),"r"(a1),"r"(a2),"r"(a3),"r"(b0),"r"(b1));
  double e[2]={d[0],d[1]};
  asm volatile("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%0,%1},{%2},{%3},{%0,%1};" : "+d"(e[0]),"+d"(e[1]) : "d"((double)d[2]),"d"((double)d[3]));
  p[threadIdx.x] = __float_as_uint(d[0]+d[1]+d[2]+d[3]+(float)e[0]+(float)e[1]);
  atomicAdd((float*)p+1, d[0]); atomicAdd(p+2, 1u); atomicMax((unsigned long long*)p+4, 5ull);
  volatile int local[100]; for (int i=0;i<100;i++) local[i]=p[i]; p[3]=local[p[9]&63];
}
