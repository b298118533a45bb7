//! Tables in a terminal: plain columns, as wide as their content, never wider than asked.

use super::{escape, table::Table};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Blanks between two columns.
const GAP: usize = 2;
/// Words are not broken into pieces shorter than this while another column can still give.
const NARROWEST: usize = 8;

impl Table {
    /// The table as lines of plain text, at most `width` columns wide (100 fits everywhere):
    /// words left, numbers right. Where there is no room, words go on in the next line; numbers
    /// stay whole. Wide and combining characters count as the terminal shows them.
    pub fn text(&self, width: usize) -> String {
        let columns = self.columns.len();
        let heading: Vec<String> = self.columns.iter().map(|c| escape::plain(&c.name)).collect();
        let body: Vec<Vec<String>> = self
            .rows
            .iter()
            .map(|row| {
                let plain = |i: usize| row.cells.get(i).map_or("–".into(), |cell| cell.plain());
                (0..if row.group { 1 } else { columns }).map(plain).collect()
            })
            .collect();
        let numeric: Vec<bool> = (0..columns).map(|i| self.is_numeric(i)).collect();
        let widths = fit(&heading, &body, &numeric, width);
        let mut out = String::new();
        if !self.title.is_empty() {
            out += &wrap(&escape::plain(&self.title), width).join("\n");
            out.push('\n');
        }
        out += &line(&heading, &widths, &numeric);
        let rules: Vec<String> = widths.iter().map(|width| "─".repeat(*width)).collect();
        out += &format!("{}\n", rules.join("  "));
        for (place, (row, cells)) in self.rows.iter().zip(&body).enumerate() {
            if row.group {
                out += if place > 0 { "\n" } else { "" };
                out += &format!("{}\n", wrap(&cells.join(""), width).join("\n"));
            } else {
                out += &line(cells, &widths, &numeric);
            }
        }
        if !self.note.is_empty() {
            out += &format!("{}\n", wrap(&escape::plain(&self.note), width).join("\n"));
        }
        out
    }
}

/// Column widths whose sum, gaps included, is at most `width`. Headings give way first, then
/// words from the widest column, and numbers only when nothing else is left.
fn fit(heading: &[String], body: &[Vec<String>], numeric: &[bool], width: usize) -> Vec<usize> {
    let columns = heading.len();
    let cells = |i: usize| {
        let rows = body.iter().filter(|row| row.len() == columns);
        rows.map(|row| row[i].width()).max().unwrap_or(0)
    };
    let word = |i: usize| heading[i].split(' ').map(|word| word.width()).max().unwrap_or(0);
    let least: Vec<usize> =
        (0..columns).map(|i| if numeric[i] { cells(i).max(word(i)) } else { NARROWEST }).collect();
    let mut widths: Vec<usize> = (0..columns).map(|i| cells(i).max(heading[i].width())).collect();
    let room = width.saturating_sub(GAP * columns.saturating_sub(1));
    let floors = [(0..columns).map(|i| cells(i).max(word(i))).collect(), least, vec![1; columns]];
    for floor in &floors {
        while widths.iter().sum::<usize>() > room {
            let gives = (0..columns).rev().filter(|&i| widths[i] > floor[i]);
            let Some(widest) = gives.max_by_key(|&i| widths[i]) else { break };
            widths[widest] -= 1;
        }
    }
    widths
}

/// One row of cells, on as many lines as its longest cell needs.
fn line(cells: &[String], widths: &[usize], numeric: &[bool]) -> String {
    let wrapped: Vec<Vec<String>> =
        cells.iter().zip(widths).map(|(cell, width)| wrap(cell, *width)).collect();
    let height = wrapped.iter().map(Vec::len).max().unwrap_or(0);
    let mut out = String::new();
    for place in 0..height {
        let parts = wrapped.iter().enumerate().map(|(i, lines)| {
            let text = lines.get(place).map_or("", String::as_str);
            let blanks = " ".repeat(widths[i].saturating_sub(text.width()));
            if numeric[i] { blanks + text } else { text.to_owned() + &blanks }
        });
        out += parts.collect::<Vec<_>>().join("  ").trim_end();
        out.push('\n');
    }
    out
}

/// Breaks text into lines, between words where it can, else behind a punctuation mark of a
/// specification (`pgd:eps=8/255,steps=10`), else anywhere.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let (mut lines, mut line) = (Vec::new(), String::new());
    for piece in text.split_inclusive([' ', ':', ',', '=', '/', '-']) {
        if line.width() + piece.trim_end().width() > width && !line.is_empty() {
            lines.push(std::mem::take(&mut line).trim_end().to_owned());
        }
        for c in piece.chars() {
            if line.width() + c.width().unwrap_or(0) > width && !line.is_empty() && c != ' ' {
                lines.push(std::mem::take(&mut line));
            }
            line.push(c);
        }
    }
    lines.push(line.trim_end().to_owned());
    lines
}

#[cfg(test)]
mod tests {
    use super::super::{share::Share, table::Cell};
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new("Robust accuracy", &["attack", "accuracy", "time"]);
        table.group("no defence");
        table.row(vec![
            Cell::text("none"),
            Cell::Share(Share::counted(197, 200)),
            Cell::Seconds(2.0),
        ]);
        table.row(vec![Cell::text("攻撃"), Cell::Share(Share::counted(5, 200)), Cell::Missing]);
        let expected = "\
Robust accuracy
attack           accuracy   time
──────  ─────────────────  ─────
no defence
none    98.5% (95.7–99.5)  2.0 s
攻撃       2.5% (1.1–5.7)      –
";
        assert_eq!(table.text(100), expected);
    }

    #[test]
    fn words_go_on_and_numbers_stay_whole() {
        let mut table = Table::new("", &["defence", "lost to attack"]);
        table.row(vec![Cell::text("clipure-cos:steps=10,eta=30"), Cell::Points(-0.915)]);
        let expected = "\
defence          lost
                   to
               attack
─────────────  ──────
clipure-cos:    −91.5
steps=10,eta=
30
";
        assert_eq!(table.text(21), expected);
    }

    #[test]
    fn never_wider_than_asked() {
        let mut table = Table::new("", &["name", "value"]);
        table.row(vec![Cell::text("x\u{1b}[31m".repeat(40)), Cell::Count(1_234_567)]);
        table.group("g".repeat(300));
        table.note = "word ".repeat(60);
        for width in [100, 30, 3] {
            let text = table.text(width);
            assert!(text.lines().all(|line| line.width() <= width.max(4)), "{width}\n{text}");
            assert!(!text.contains('\u{1b}'));
        }
        assert!(table.text(100).contains("1,234,567"));
    }
}
