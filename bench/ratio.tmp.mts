import { native } from '/work/wt/reg/ts/native/index.ts';
import { cases } from '/work/wt/reg/bench/routers.bench.ts';
native().setThreads(Number(process.env.TH ?? 1));
const R = Number(process.env.R ?? 25);
const pre = process.env.PRE ?? 'routers';
for (const name of process.argv.slice(2)) {
  const c = cases.find(c => c.name === `${pre}/${name}/f32/train`)!; const w = c.setup(), b = c.baseline!.setup();
  for (let i=0;i<3;i++) { w.run(); b.run(); }
  const rs:number[]=[], A:number[]=[], B:number[]=[];
  const cpu = () => { const u = process.cpuUsage(); return (u.user+u.system)/1000; };
  for (let i=0;i<R;i++) { const t0=cpu(); w.run(); const t1=cpu(); b.run(); const t2=cpu(); rs.push((t1-t0)/(t2-t1)); A.push(t1-t0); B.push(t2-t1); }
  const med=(x:number[])=>x.sort((a,b)=>a-b)[x.length>>1]!;
  console.log(name.padEnd(18), med(rs).toFixed(2), 'ours', med(A).toFixed(2), 'min', A[0]!.toFixed(2), 'smoe', med(B).toFixed(2), 'min', B[0]!.toFixed(2), 'minratio', (A[0]!/B[0]!).toFixed(2), 'flops', (c.flops/c.baseline!.flops).toFixed(2));
  w.dispose(); b.dispose();
}
