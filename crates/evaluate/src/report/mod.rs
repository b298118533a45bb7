//! The report: one HTML file that needs nothing but itself.
//!
//! A report is read by people who were not there, on a phone, in print, in two years. So it is one
//! file without scripts, loads nothing, says first what came out and whether to believe it, then
//! what that means, and at the end how to get the same numbers again. A [`Report`] is plain data
//! that commands fill; the same value renders to the same bytes. A template engine was not taken:
//! escaping would then depend on the template, here it is one function that every text passes.

mod axis;
mod certified;
mod chart;
mod curve;
mod escape;
mod evidence;
mod findings;
mod from_records;
mod from_run;
mod gallery;
mod number;
mod overview;
mod panel;
mod radius;
mod share;
mod studies;
mod table;
#[cfg(test)]
mod tests;
mod text;

pub use axis::{Axis, Scale};
pub use chart::{Bar, BarChart, LineChart, Point, Series};
pub use findings::reason;
pub use from_records::headline_record;
pub use gallery::{Gallery, Pixels, Prediction, Triple};
pub use panel::{Comparison, Headline, Reproduce, Side, ThreatModel, Tone};
pub use share::Share;
pub use studies::is_study;
pub use table::{Cell, Column, Row, Table};

use crate::records::record::Check;
use escape::html;

/// Everything a report shows, in its order; empty parts are left out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// What was examined.
    pub title: String,
    /// A line above the title: model, data set.
    pub kicker: String,
    /// The verdict.
    pub headline: Headline,
    /// What it means, for readers who are new to the subject.
    pub explanation: Vec<String>,
    /// Who attacks.
    pub threat: Option<ThreatModel>,
    /// Tables, charts, pictures.
    pub sections: Vec<Section>,
    /// Plausibility checks of the headline's number.
    pub checks: Vec<Check>,
    /// What the numbers do not say.
    pub limits: Vec<String>,
    /// How to get them again.
    pub reproduce: Reproduce,
}

/// A part of a report under its own heading.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Section {
    /// The heading.
    pub title: String,
    /// What is shown, from the top.
    pub blocks: Vec<Block>,
}

/// One thing shown.
#[derive(Clone, Debug, PartialEq)]
pub enum Block {
    /// Words.
    Text(String),
    /// A table.
    Table(Table),
    /// Curves.
    Lines(LineChart),
    /// Bars.
    Bars(BarChart),
    /// Pictures.
    Gallery(Gallery),
    /// Two protocols.
    Comparison(Comparison),
}

impl Section {
    /// A section with these blocks.
    pub fn new(title: impl Into<String>, blocks: Vec<Block>) -> Self {
        Self { title: title.into(), blocks }
    }

    fn html(&self, index: usize) -> String {
        let mut out = format!("<section id=\"s{index}\"><h2>{}</h2>", html(&self.title));
        let mut row = String::new();
        for block in &self.blocks {
            // Neighbouring charts share a row where the page is wide enough.
            match block {
                Block::Lines(chart) => row += &chart.html(),
                Block::Bars(chart) => row += &chart.html(),
                other => {
                    out += &charts(&mut row);
                    out += &match other {
                        Block::Text(text) => format!("<p>{}</p>", html(text)),
                        Block::Table(table) => table.html(),
                        Block::Gallery(gallery) => gallery.html(),
                        Block::Comparison(comparison) => comparison.html(),
                        Block::Lines(_) | Block::Bars(_) => String::new(),
                    };
                }
            }
        }
        out += &charts(&mut row);
        out + "</section>"
    }
}

/// A duration as people say it: `0.4 s`, `3 min 20 s`, `2 h 5 min`.
pub fn duration(seconds: f64) -> String {
    number::seconds(seconds)
}

fn charts(row: &mut String) -> String {
    let charts = std::mem::take(row);
    if charts.is_empty() { charts } else { format!("<div class=\"charts\">{charts}</div>") }
}

impl Report {
    /// The report as one HTML document.
    pub fn render(&self) -> String {
        let title = html(&self.title);
        let mut out = format!(
            "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
             <meta name=\"color-scheme\" content=\"light dark\">\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; \
             img-src data:; style-src 'unsafe-inline'\">\
             <title>{title}</title>\n<style>{}</style></head>\n<body><main>\n",
            include_str!("style.css")
        );
        out += "<header>";
        if !self.kicker.is_empty() {
            out += &format!("<p class=\"kicker\">{}</p>", html(&self.kicker));
        }
        out += &format!("<h1>{title}</h1></header>\n{}\n", self.headline.html());
        out += &self.context();
        for (index, section) in self.sections.iter().enumerate() {
            out += &section.html(index + 1);
            out.push('\n');
        }
        out += &findings::checks(&self.checks);
        if !self.limits.is_empty() {
            let limits: String =
                self.limits.iter().map(|limit| format!("<li>{}</li>", html(limit))).collect();
            out += &format!(
                "<section><h2>What these numbers do not say</h2><ul>{limits}</ul></section>\n"
            );
        }
        if self.reproduce != Reproduce::default() {
            out += &self.reproduce.html();
        }
        out + "<footer>clipguard</footer>\n</main></body></html>\n"
    }

    /// Explanation and threat model, side by side where both are there.
    fn context(&self) -> String {
        let explanation = match self.explanation.as_slice() {
            [] => String::new(),
            texts => format!("<section><h2>What this means</h2>{}</section>", paragraphs(texts)),
        };
        match &self.threat {
            Some(threat) if !explanation.is_empty() => {
                format!("<div class=\"context\">{explanation}{}</div>\n", threat.html())
            }
            Some(threat) => threat.html(),
            None => explanation,
        }
    }
}

fn paragraphs(texts: &[String]) -> String {
    texts.iter().map(|text| format!("<p>{}</p>", html(text))).collect()
}
