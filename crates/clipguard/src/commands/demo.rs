//! `clipguard demo`.

use super::evaluate::{Job, carry_out, tell};
use crate::{failure::Failure, session::Session};
use clipguard_evaluate::{Defence, Plan, Published, Record, Shard, records::record};
use clipguard_model::GradientMode;
use std::path::PathBuf;

/// The whole story in under a minute: classify, attack, purify, and see what is left.
///
/// Takes the embedded model and pictures, fools the model with changes nobody sees, puts a
/// published defence (CLIPure-Cos) in front, and measures it twice: as its publication did, and
/// as an attacker would who knows it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  clipguard demo --out runs/demo\n  \
    then open runs/demo/report.html")]
pub(crate) struct Args {
    /// Folder of the run.
    #[arg(long, default_value = "clipguard-demo")]
    out: PathBuf,
    /// Pictures to attack.
    #[arg(long, default_value_t = 64)]
    samples: usize,
}

const STORY: [&str; 3] = [
    "The model names what it sees in small drawn scenes. An attacker who knows the model changes \
     every pixel by at most 2 of 255 levels: people see no difference, the model does.",
    "CLIPure-Cos is a published defence that works on the model's inner description of the picture. \
     Measured as in its released code it protects more pictures than it \
     really does: the attacker's sense of direction, the gradient, is lost inside the defence, so \
     part of the pictures was never really attacked.",
    "Given back that sense of direction, or simply pictures made against the model without the \
     defence, the attacker wins as if there were no defence: with the published settings the \
     defence turns the description and turns it back. A defence is worth what the attacker who \
     knows it leaves of it.",
];

fn plan(samples: usize, seed: u64) -> Plan {
    Plan {
        title: "Does CLIPure-Cos protect the embedded model?".to_owned(),
        seed,
        samples,
        batch: 32,
        models: vec!["embedded".to_owned()],
        data: vec!["scenes:840:part=instyle".to_owned()],
        templates: "scenes".to_owned(),
        attacks: vec!["pgd:eps=2/255,steps=20,loss=margin".to_owned()],
        defence: vec![
            Defence::default(),
            Defence {
                name: "clipure-cos".to_owned(),
                purify: vec!["clipure-cos".to_owned()],
                gradients: vec![GradientMode::Exact, GradientMode::StraightThrough],
                transfer: true,
                published: Some(Published {
                    purify: vec!["clipure-cos:mode=released".to_owned()],
                    gradient: GradientMode::Detached,
                    batch: 2,
                }),
                ..Defence::default()
            },
        ],
        ..Plan::default()
    }
}

pub(crate) fn run(args: &Args, session: &Session) -> Result<(), Failure> {
    let plan = plan(args.samples, session.seed);
    let command = format!("clipguard demo --out {}", args.out.display());
    let job = Job {
        folder: &args.out,
        command: &command,
        explanation: &STORY,
        shard: Shard::default(),
        deadline: None,
    };
    let evaluation = carry_out(&plan, &job, session)?;
    if !session.json {
        verdict(&evaluation.records).iter().for_each(|line| println!("{line}"));
        println!();
    }
    tell(&evaluation.records, &args.out, session)
}

/// The story in four lines, with the numbers that were measured.
fn verdict(records: &[Record]) -> Vec<String> {
    let share = |find: &dyn Fn(&Record) -> bool| {
        let found = records.iter().find(|r| find(r)).and_then(Record::share);
        found.map_or("?".to_owned(), |share| format!("{:.0}%", 100.0 * share))
    };
    let worst = |defended: bool| {
        share(&move |r: &Record| r.attack == record::WORST_CASE && r.is_defended() == defended)
    };
    vec![
        format!("right on clean pictures              {:>5}", share(&|r: &Record| r.is_clean())),
        format!("after the attack, no defence         {:>5}", worst(false)),
        format!(
            "with CLIPure-Cos, published protocol {:>5}   the attack could not see through it",
            share(&|r: &Record| r.protocol == record::PUBLISHED)
        ),
        format!(
            "with CLIPure-Cos, honest protocol    {:>5}   the attacker knows the defence",
            worst(true)
        ),
    ]
}
