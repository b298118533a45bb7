//! Tables: one value, drawn as HTML in a report and as plain columns in a terminal.

use super::{escape, number, share::Share};
use crate::records::record::Verdict;

/// A table with named columns.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// What the table shows; may be empty.
    pub title: String,
    /// How to read it; may be empty.
    pub note: String,
    /// Columns from the left; a row may be shorter.
    pub columns: Vec<Column>,
    /// Rows from the top.
    pub rows: Vec<Row>,
}

/// A column's heading.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Column {
    /// The heading.
    pub name: String,
    /// What it means, as a tooltip; may be empty.
    pub hint: String,
}

/// One row of cells.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// Cells from the left.
    pub cells: Vec<Cell>,
    /// The row to look at, such as the worst case.
    pub strong: bool,
    /// The row is a heading of those below it: its first cell spans the table.
    pub group: bool,
}

/// What stands in a cell.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Cell {
    /// Nothing known: a dash.
    #[default]
    Missing,
    /// Words.
    Text(String),
    /// A name a machine reads: an option, a path, a digest.
    Code(String),
    /// A number with so many digits behind the point.
    Number(f64, usize),
    /// A count.
    Count(u64),
    /// A share with its interval, drawn as a bar.
    Share(Share),
    /// A difference of fractions, in percentage points.
    Points(f64),
    /// A duration in seconds.
    Seconds(f64),
    /// The outcome of a check.
    Verdict(Verdict),
}

impl Cell {
    /// Words.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// A number that may be missing.
    pub fn number(value: Option<f64>, digits: usize) -> Self {
        value.map_or(Self::Missing, |value| Self::Number(value, digits))
    }

    /// The cell as one line of plain text.
    pub fn plain(&self) -> String {
        match self {
            Self::Missing => number::MISSING.into(),
            Self::Text(text) | Self::Code(text) => escape::plain(text),
            Self::Number(value, digits) => number::number(*value, *digits),
            Self::Count(value) => number::count(*value),
            Self::Share(share) if share.interval.is_some() => {
                format!("{} ({})", share.percent(), share.range())
            }
            Self::Share(share) => share.percent(),
            Self::Points(value) => number::points(*value),
            Self::Seconds(value) => number::seconds(*value),
            Self::Verdict(verdict) => verdict_name(*verdict).into(),
        }
    }

    /// Whether the cell's content stands at the right, under its neighbours' last digits.
    pub(crate) fn is_numeric(&self) -> bool {
        !matches!(self, Self::Text(_) | Self::Code(_) | Self::Verdict(_) | Self::Missing)
    }

    fn html(&self, class: &str) -> String {
        match self {
            Self::Share(share) => format!(
                "<span class=\"share\"><b>{}</b>{}<small>{}</small></span>",
                escape::html(&share.percent()),
                share.bar(class, None),
                share.range()
            ),
            Self::Code(text) => format!("<code>{}</code>", escape::html(text)),
            Self::Text(text) => escape::html(text),
            Self::Verdict(verdict) => badge(*verdict),
            other => escape::html(&other.plain()),
        }
    }
}

impl Table {
    /// A table with these headings and no rows.
    pub fn new(title: impl Into<String>, columns: &[&str]) -> Self {
        let column = |name: &&str| Column { name: (*name).to_owned(), hint: String::new() };
        let columns = columns.iter().map(column).collect();
        Self { title: title.into(), columns, ..Self::default() }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: Vec<Cell>) -> &mut Self {
        self.rows.push(Row { cells, ..Row::default() });
        self
    }

    /// Adds a row to look at.
    pub fn strong_row(&mut self, cells: Vec<Cell>) -> &mut Self {
        self.rows.push(Row { cells, strong: true, ..Row::default() });
        self
    }

    /// Adds a heading for the rows that follow.
    pub fn group(&mut self, name: impl Into<String>) -> &mut Self {
        self.rows.push(Row { cells: vec![Cell::text(name)], group: true, ..Row::default() });
        self
    }

    /// Whether all that a column holds are numbers.
    pub(crate) fn is_numeric(&self, column: usize) -> bool {
        let rows = self.rows.iter().filter(|row| !row.group);
        let mut cells = rows.filter_map(|row| row.cells.get(column));
        let any = cells.clone().any(Cell::is_numeric);
        any && cells.all(|cell| cell.is_numeric() || *cell == Cell::Missing)
    }

    /// Whether a column holds shares, whose bars need room.
    fn is_share(&self, column: usize) -> bool {
        let share = |row: &Row| matches!(row.cells.get(column), Some(Cell::Share(_)));
        self.rows.iter().any(|row| !row.group && share(row))
    }

    /// The table as HTML, in a frame that scrolls when the screen is narrow.
    pub fn html(&self) -> String {
        // Bars beside many shares would push the last of them off the page.
        let shares = (0..self.columns.len()).filter(|column| self.is_share(*column)).count();
        let class = if shares > 2 { "table many" } else { "table" };
        let mut out = format!("<figure class=\"{class}\">");
        if !self.title.is_empty() {
            out += &format!("<figcaption>{}</figcaption>", escape::html(&self.title));
        }
        out += "<div class=\"scroll\" tabindex=\"0\"><table><thead><tr>";
        let sides: Vec<&str> = (0..self.columns.len())
            .map(|column| match self.is_numeric(column) {
                true if self.is_share(column) => " class=\"sh\"",
                true => " class=\"n\"",
                false => "",
            })
            .collect();
        for (column, side) in self.columns.iter().zip(&sides) {
            let hint = match column.hint.as_str() {
                "" => String::new(),
                hint => format!(" title=\"{}\"", escape::html(hint)),
            };
            out += &format!("<th scope=\"col\"{side}{hint}>{}</th>", escape::html(&column.name));
        }
        out += "</tr></thead><tbody>";
        for row in &self.rows {
            let class = if row.strong { "bad" } else { "plain" };
            if let Some(name) = row.cells.first().filter(|_| row.group) {
                out += &format!(
                    "<tr class=\"group\"><th scope=\"colgroup\" colspan=\"{}\">{}</th></tr>",
                    self.columns.len().max(1),
                    name.html(class)
                );
                continue;
            }
            out += if row.strong { "<tr class=\"strong\">" } else { "<tr>" };
            for (index, side) in sides.iter().enumerate() {
                let cell = row.cells.get(index).unwrap_or(&Cell::Missing).html(class);
                out += &match index {
                    0 => format!("<th scope=\"row\"{side}>{cell}</th>"),
                    _ => format!("<td{side}>{cell}</td>"),
                };
            }
            out += "</tr>";
        }
        out += "</tbody></table></div>";
        if !self.note.is_empty() {
            out += &format!("<p class=\"note\">{}</p>", escape::html(&self.note));
        }
        out + "</figure>"
    }
}

/// The verdict's name.
pub(crate) fn verdict_name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Ok => "ok",
        Verdict::Suspect => "suspect",
        Verdict::Fail => "fail",
        Verdict::NotRun => "not run",
    }
}

/// The verdict as a coloured word; the sign says the same to those who do not see colours.
pub(crate) fn badge(verdict: Verdict) -> String {
    let (class, sign) = match verdict {
        Verdict::Ok => ("good", "✓"),
        Verdict::Suspect => ("mixed", "?"),
        Verdict::Fail => ("bad", "✕"),
        Verdict::NotRun => ("quiet", "–"),
    };
    format!(
        "<span class=\"badge {class}\"><span aria-hidden=\"true\">{sign}</span> {}</span>",
        verdict_name(verdict)
    )
}
