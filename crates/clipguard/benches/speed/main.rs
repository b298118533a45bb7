//! Our side of `bench/speed.py`, which puts these cases beside PyTorch and the programs people use.
//!
//! A case is a name such as `vit-b-32/8/pixels`. On standard input come lines `CASE TIMES`; for each
//! goes back one line of `TIMES` durations in seconds, after a call that is not counted. A case is made
//! once and kept, so that two programs can take turns. `CASE once` is one call that counts, for work of
//! minutes; `CASE memory` answers with the bytes that the
//! process had at the peak of one call. With the argument `bf16` products are in bf16, and where there is no
//! such case the answer is `none`.
//!
//! By hand: `echo "vit-b-32/8/forward 5" | cargo bench --workspace --bench speed`
#![allow(clippy::unwrap_used, reason = "a benchmark stops at the first thing that is wrong")]
#![allow(clippy::expect_used, reason = "a benchmark stops at the first thing that is wrong")]

mod attacks;
mod memory;
mod pictures;
mod resnet;
mod towers;

use clipguard_model::Arithmetic;
use std::{collections::HashMap, io::BufRead, time::Instant};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// One piece of work, repeatable.
type Case = Box<dyn FnMut()>;

fn case(name: &str, arithmetic: Arithmetic) -> Option<Case> {
    let parts: Vec<&str> = name.split('/').collect();
    match parts[..] {
        ["pictures" | "attack", ..] if arithmetic == Arithmetic::Bf16 => None,
        ["pictures", work, folder] => Some(pictures::case(work, &folder.replace('|', "/"))),
        ["attack", work, model] => Some(attacks::case(work, model)),
        [tower, batch, work] => towers::case(tower, batch.parse().unwrap(), work, arithmetic),
        _ => panic!("no case `{name}`"),
    }
}

fn main() {
    clipguard_ops::keep_freed_memory();
    // On a thread of the pool, as the program does.
    rayon::scope(|_| serve());
}

fn serve() {
    let arithmetic = match std::env::args().any(|argument| argument == "bf16") {
        true => Arithmetic::Bf16,
        false => Arithmetic::F32,
    };
    let mut cases: HashMap<String, Option<Case>> = HashMap::new();
    for line in std::io::stdin().lock().lines() {
        let line = line.unwrap();
        let (name, times) = line.split_once(' ').expect("CASE TIMES");
        let case = cases.entry(name.to_owned()).or_insert_with(|| case(name, arithmetic));
        let Some(case) = case else {
            println!("none");
            continue;
        };
        if times == "memory" {
            println!("{}", memory::peak(case));
            continue;
        }
        let mut one = || {
            let begun = Instant::now();
            case();
            begun.elapsed().as_secs_f64().to_string()
        };
        if times == "once" {
            println!("{}", one());
            continue;
        }
        one();
        let times: Vec<String> = (0..times.parse().unwrap()).map(|_: usize| one()).collect();
        println!("{}", times.join(" "));
    }
}
