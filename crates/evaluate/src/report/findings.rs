//! Plausibility checks as a table and in words.

use super::{
    escape::html,
    table::{Cell, Table, badge},
};
use crate::records::record::{Check, Verdict};

impl Table {
    /// Findings, a row each.
    pub fn of_checks(checks: &[Check]) -> Self {
        let mut table = Self::new(
            "",
            &["check", "what should hold", "result", "value", "limit", "p", "pictures"],
        );
        for check in checks {
            table.row(vec![
                Cell::Text(check.id.clone()),
                Cell::Text(check.name.clone()),
                Cell::Verdict(check.verdict),
                Cell::number(check.value, 3),
                Cell::number(check.threshold, 3),
                Cell::number(check.p_value, 3),
                check.n.map_or(Cell::Missing, |n| Cell::Count(n as u64)),
            ]);
        }
        table
    }
}

/// What a finding means, for those who have to do something about it.
pub fn reason(check: &Check) -> String {
    match check.verdict {
        Verdict::NotRun => check.explanation.clone(),
        _ => format!("{} {}", check.explanation, check.remedy),
    }
}

/// The checks of a report: those that were not passed with their reasons, then all with their
/// values, then why some were not run.
pub(crate) fn checks(checks: &[Check]) -> String {
    if checks.is_empty() {
        return String::new();
    }
    let reasons = checks.iter().filter(|c| matches!(c.verdict, Verdict::Fail | Verdict::Suspect));
    let reasons: String = reasons
        .map(|check| {
            format!(
                "<div class=\"reason\"><p>{} <b>{} {}</b></p><p>{}</p><p class=\"unit\">{}</p></div>",
                badge(check.verdict),
                html(&check.id),
                html(&check.name),
                html(&check.explanation),
                html(&check.remedy)
            )
        })
        .collect();
    let missing: String = checks
        .iter()
        .filter(|check| check.verdict == Verdict::NotRun && !check.explanation.is_empty())
        .map(|check| format!("<li>{}: {}</li>", html(&check.id), html(&check.explanation)))
        .collect();
    let missing = match missing.as_str() {
        "" => missing,
        list => format!("<p class=\"note\">Not run:</p><ul class=\"note\">{list}</ul>"),
    };
    format!(
        "<section><h2>Can the numbers be trusted?</h2><p>A defence can look strong because the \
         attack was weak. These checks look for the signs of that.</p>{reasons}{}{missing}</section>",
        Table::of_checks(checks).html()
    )
}
