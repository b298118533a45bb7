//! The program.
use clipguard_train::{Recipe, Run, Watch};
use std::{path::Path, sync::atomic::AtomicBool, time::Instant};
struct W(Instant, u64);
impl Watch for W {
    fn step(&mut self, done: u64, total: u64, loss: f32) {
        if self.1 == 0 { self.1 = done; self.0 = Instant::now(); }
        if done % 10 == 0 || done < 5 {
            let per = self.0.elapsed().as_secs_f64() / (done - self.1).max(1) as f64;
            eprintln!("{done}/{total} loss {loss:.4} {per:.3} s/step");
        }
    }
    fn skipped(&mut self, key: &str, reason: &str) { eprintln!("skipped {key}: {reason}"); }
}
#[global_allocator]
static A: mimalloc::MiMalloc = mimalloc::MiMalloc;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let text = std::fs::read_to_string(&a[1]).expect("recipe");
    let recipe = Recipe::parse(&text, Path::new(&a[1])).expect("recipe");
    let open = |s: &str| clipguard_data::open(s, &Default::default());
    let out = Path::new(&a[2]);
    let mut run = if out.join("plan.toml").exists() {
        Run::resume(out, |s| Ok(open(s)?)).expect("resume")
    } else { Run::start(recipe.clone(), open(&recipe.data).expect("data"), out).expect("start") };
    println!("{:?}", run.train(&mut W(Instant::now(), 0), &AtomicBool::new(false)));
}
