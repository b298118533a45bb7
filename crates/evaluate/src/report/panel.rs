//! The fixed parts of a report: verdict, threat model, the two protocols, checks, how to
//! reproduce.

use super::{escape::html, number, share::Share};
use crate::records::record::{Record, Reliability, WORST_CASE};

/// Whether the news is good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    /// As hoped.
    Good,
    /// Something to think about.
    Mixed,
    /// A failure.
    Bad,
    /// Neither.
    #[default]
    Neutral,
}

impl Tone {
    pub(crate) fn class(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Mixed => "mixed",
            Self::Bad => "bad",
            Self::Neutral => "plain",
        }
    }
}

/// What a reader knows after five seconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Headline {
    /// The verdict, one sentence.
    pub sentence: String,
    /// Whether it is good news.
    pub tone: Tone,
    /// The number in large figures, with what it counts; may be missing.
    pub figure: Option<(Share, String)>,
    /// Whether the number can be trusted; `None` where there is nothing to check.
    pub reliability: Option<Reliability>,
    /// A few shares on a common scale, such as clean, published and worst case.
    pub strip: Vec<(String, Share, Tone)>,
    /// The share that guessing reaches, marked on the scale.
    pub chance: Option<f64>,
    /// Further sentences.
    pub details: Vec<String>,
}

impl Headline {
    pub(crate) fn html(&self) -> String {
        if *self == Self::default() {
            return String::new();
        }
        let tone = self.tone.class();
        let mut out = format!("<section class=\"verdict {tone}\" aria-label=\"Verdict\">");
        if let Some((share, caption)) = &self.figure {
            out += &format!(
                "<div class=\"figure\"><span class=\"big\">{}</span><span class=\"unit\">{}</span>",
                html(&share.percent()),
                html(caption)
            );
            if share.interval.is_some() {
                out += &format!("<span class=\"unit\">95% interval {}%</span>", share.range());
            }
            out += "</div>";
        }
        out += &format!("<div class=\"said\"><p class=\"sentence\">{}</p>", html(&self.sentence));
        if let Some(reliability) = self.reliability {
            out += &label(reliability);
        }
        if !self.strip.is_empty() {
            out += "<div class=\"strip\">";
            for (name, share, tone) in &self.strip {
                out += &format!(
                    "<div><span class=\"label\">{}</span>{}<span class=\"value\">{}</span></div>",
                    html(name),
                    share.bar(tone.class(), self.chance),
                    html(&share.percent())
                );
            }
            out += "<div aria-hidden=\"true\"><span></span><span class=\"ends\"><span>0%</span>";
            out += "<span>100%</span></span><span></span></div></div>";
            if let Some(chance) = self.chance {
                let chance = html(&number::percent(chance));
                out += &format!("<p class=\"unit\">Dashed: guessing, {chance}.</p>");
            }
        }
        out +=
            &self.details.iter().map(|text| format!("<p>{}</p>", html(text))).collect::<String>();
        out + "</div></section>"
    }
}

fn label(reliability: Reliability) -> String {
    let (class, sign, words) = match reliability {
        Reliability::Plausible => ("good", "✓", "This number passed its plausibility checks"),
        Reliability::Doubtful => ("mixed", "?", "Doubtful: one plausibility check is suspect"),
        Reliability::NotReliable => ("bad", "✕", "Not reliable: see the checks below"),
        Reliability::Unchecked => ("quiet", "–", "Not checked for signs of a weak attack"),
    };
    format!(
        "<p><span class=\"badge {class}\"><span aria-hidden=\"true\">{sign}</span> {words}</span></p>"
    )
}

/// What the attacker may do, knows and wants.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ThreatModel {
    /// What counts as a success of the attacker.
    pub goal: String,
    /// What the attacker knows of model and defence.
    pub knowledge: String,
    /// What the attacker may change, by how much, measured how.
    pub capability: String,
    /// Further lines: name and text.
    pub more: Vec<(String, String)>,
}

impl ThreatModel {
    pub(crate) fn html(&self) -> String {
        let fixed = [
            ("Goal", &self.goal),
            ("Knowledge", &self.knowledge),
            ("Capability", &self.capability),
        ];
        let more = self.more.iter().map(|(name, text)| (name.as_str(), text));
        let lines = fixed.into_iter().chain(more).filter(|(_, text)| !text.is_empty());
        let lines: String = lines
            .map(|(name, text)| {
                format!("<div><dt>{}</dt><dd>{}</dd></div>", html(name), html(text))
            })
            .collect();
        format!("<section class=\"box\"><h2>Who attacks, and how</h2><dl>{lines}</dl></section>")
    }
}

/// The same system measured in two ways.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Comparison {
    /// The heading.
    pub title: String,
    /// As the method's publication measured.
    pub published: Side,
    /// As an attacker who knows the method would.
    pub honest: Side,
    /// What follows from the difference.
    pub conclusion: String,
    /// Whether that is good news.
    pub tone: Tone,
}

/// One of the two ways.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Side {
    /// Its name.
    pub label: String,
    /// What came out.
    pub share: Share,
    /// Whether the number can be trusted; `None` where nothing was checked.
    pub reliability: Option<Reliability>,
    /// How it was done, a line each.
    pub facts: Vec<String>,
}

/// A loss of more than this, as a fraction, between two protocols is called gradient masking.
const MASKING: f64 = 0.05;

impl Comparison {
    /// The panel of a defence's record under the published protocol and its worst case.
    pub fn of(published: &Record, honest: &Record) -> Self {
        let side = |label: &str, record: &Record| Side {
            label: label.into(),
            share: Share::of(record),
            reliability: Some(Reliability::of(&record.checks))
                .filter(|label| *label != Reliability::Unchecked),
            facts: facts(record),
        };
        let title = match published.is_defended() {
            true => published.defence.clone(),
            false => "no defence".into(),
        };
        let (published, honest) =
            (side("Published protocol", published), side("Worst case", honest));
        let loss = published.share.value.zip(honest.share.value).map(|(p, h)| p - h);
        let (conclusion, tone) = match loss {
            None => ("One of the two numbers is missing.".into(), Tone::Neutral),
            Some(loss) if loss > MASKING => (
                format!(
                    "{} points of robustness disappear: gradient masking. The published attack \
                     could not see the way through the defence; a stronger attack finds it.",
                    number::points(loss).trim_start_matches('+')
                ),
                Tone::Bad,
            ),
            Some(loss) => (
                format!(
                    "The two protocols differ by {} points, not more than {} points: no sign of \
                     gradient masking.",
                    number::points(-loss),
                    number::number(MASKING * 100.0, 0)
                ),
                Tone::Good,
            ),
        };
        Self { title, published, honest, conclusion, tone }
    }

    pub(crate) fn html(&self) -> String {
        let side = |side: &Side, class: &str| {
            let facts: String =
                side.facts.iter().map(|f| format!("<li>{}</li>", html(f))).collect();
            let range = match side.share.range().as_str() {
                "" => String::new(),
                range => format!("<span class=\"unit\">95% interval {range}%</span>"),
            };
            format!(
                "<div class=\"side {class}\"><h3>{}</h3><span class=\"big\">{}</span>{}{range}\
                 {}<ul>{facts}</ul></div>",
                html(&side.label),
                html(&side.share.percent()),
                side.share.bar(class, None),
                side.reliability.map_or(String::new(), label)
            )
        };
        format!(
            "<figure class=\"comparison\"><figcaption>{}</figcaption><div class=\"sides\">{}{}</div>\
             <p class=\"conclusion {}\">{}</p></figure>",
            html(&self.title),
            side(&self.published, if self.tone == Tone::Bad { "mixed" } else { "plain" }),
            side(&self.honest, self.tone.class()),
            self.tone.class(),
            html(&self.conclusion)
        )
    }
}

fn facts(record: &Record) -> Vec<String> {
    let mut facts = vec![match record.attack.as_str() {
        WORST_CASE => "right only if no attack of the plan succeeds".to_owned(),
        attack => format!("attack: {attack}"),
    }];
    facts
        .extend(record.gradient.iter().map(|mode| format!("gradient through the defence: {mode}")));
    if record.n > 0 {
        facts.push(format!("{} pictures", number::count(record.n as u64)));
    }
    facts
}

/// How to get the same numbers again.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reproduce {
    /// The command line.
    pub command: String,
    /// The seed.
    pub seed: Option<u64>,
    /// The program's version.
    pub version: String,
    /// Digests and whatever else identifies the run: name and value.
    pub digests: Vec<(String, String)>,
}

impl Reproduce {
    pub(crate) fn html(&self) -> String {
        let mut out = String::from("<section><h2>How to reproduce this</h2>");
        if !self.command.is_empty() {
            out += &format!("<pre><code>{}</code></pre>", html(&self.command));
        }
        let seed = self.seed.map(|seed| ("seed".to_owned(), seed.to_string()));
        let version =
            (!self.version.is_empty()).then(|| ("version".to_owned(), self.version.clone()));
        let lines: String = seed
            .into_iter()
            .chain(version)
            .chain(self.digests.iter().cloned())
            .map(|(name, value)| {
                format!("<div><dt>{}</dt><dd><code>{}</code></dd></div>", html(&name), html(&value))
            })
            .collect();
        out + &format!("<dl class=\"digests\">{lines}</dl></section>")
    }
}
