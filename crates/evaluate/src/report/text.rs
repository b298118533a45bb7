//! Tables in a terminal: plain columns, as wide as their content, never wider than asked.

use super::{escape, table::Table};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Blanks between two columns.
const GAP: usize = 2;
/// No column is cut to less than this.
const NARROWEST: usize = 6;

impl Table {
    /// The table as lines of plain text, at most `width` columns wide (100 fits everywhere):
    /// words left, numbers right, and the widest column cut with an ellipsis where there is no
    /// room. Wide and combining characters count as the terminal shows them.
    pub fn text(&self, width: usize) -> String {
        let columns = self.columns.len();
        let heading = self.columns.iter().map(|column| escape::plain(&column.name)).collect();
        let mut lines: Vec<Vec<String>> = vec![heading];
        lines.extend(self.rows.iter().map(|row| {
            (0..columns).map(|i| row.cells.get(i).map_or("–".into(), |cell| cell.plain())).collect()
        }));
        let widths = fit(&lines, columns, width);
        let mut out = String::new();
        if !self.title.is_empty() {
            out += &format!("{}\n", escape::plain(&self.title));
        }
        for (place, line) in lines.iter().enumerate() {
            let cells: Vec<String> = (0..columns)
                .map(|i| pad(&line[i], widths[i], self.is_numeric(i)))
                .collect();
            out += cells.join("  ").trim_end();
            out.push('\n');
            if place == 0 {
                let rules: Vec<String> = widths.iter().map(|width| "─".repeat(*width)).collect();
                out += &rules.join("  ");
                out.push('\n');
            }
        }
        if !self.note.is_empty() {
            out += &wrap(&escape::plain(&self.note), width);
        }
        out
    }
}

/// Column widths whose sum, gaps included, is at most `width` unless every column is at its
/// narrowest.
fn fit(lines: &[Vec<String>], columns: usize, width: usize) -> Vec<usize> {
    let natural = |i: usize| lines.iter().map(|line| line[i].width()).max().unwrap_or(0);
    let mut widths: Vec<usize> = (0..columns).map(natural).collect();
    let room = width.saturating_sub(GAP * columns.saturating_sub(1));
    while widths.iter().sum::<usize>() > room {
        let Some(widest) = (0..columns).rev().max_by_key(|&i| widths[i]) else { break };
        if widths[widest] <= NARROWEST {
            break;
        }
        widths[widest] -= 1;
    }
    widths
}

fn pad(text: &str, width: usize, right: bool) -> String {
    let text = cut(text, width);
    let blanks = " ".repeat(width.saturating_sub(text.width()));
    if right { blanks + &text } else { text + &blanks }
}

fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let (mut out, mut used) = (String::new(), 1);
    for c in text.chars() {
        used += c.width().unwrap_or(0);
        if used > width {
            break;
        }
        out.push(c);
    }
    out + "…"
}

/// Breaks a paragraph between words.
fn wrap(text: &str, width: usize) -> String {
    let (mut out, mut used) = (String::new(), 0);
    for word in text.split_whitespace() {
        let size = word.width();
        if used > 0 && used + 1 + size > width {
            out.push('\n');
            used = 0;
        } else if used > 0 {
            out.push(' ');
            used += 1;
        }
        out += word;
        used += size;
    }
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::super::{share::Share, table::Cell};
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new("Robust accuracy", &["attack", "accuracy", "time"]);
        table.row(vec![Cell::text("none"), Cell::Share(Share::counted(197, 200)), Cell::Seconds(2.0)]);
        table.row(vec![Cell::text("攻撃"), Cell::Share(Share::counted(5, 200)), Cell::Missing]);
        let expected = "\
Robust accuracy
attack           accuracy   time
──────  ─────────────────  ─────
none    98.5% (95.7–99.5)  2.0 s
攻撃       2.5% (1.1–5.7)      –
";
        assert_eq!(table.text(100), expected);
    }

    #[test]
    fn never_wider_than_asked() {
        let mut table = Table::new("", &["name", "value"]);
        table.row(vec![Cell::text("x\u{1b}[31m".repeat(40)), Cell::Count(1_234_567)]);
        table.note = "word ".repeat(60);
        let text = table.text(100);
        assert!(text.lines().all(|line| line.width() <= 100), "{text}");
        assert!(text.contains('…') && text.contains("1,234,567") && !text.contains('\u{1b}'));
    }
}
