//! Tables in columns as wide as their widest cell, and colours where the stream wants them.

use crate::text::clean;

/// What a text means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Style {
    /// Nothing special.
    #[default]
    Plain,
    /// As it should be.
    Good,
    /// Not as it should be.
    Bad,
    /// Going on.
    Busy,
    /// Not now.
    Dim,
}

/// Colours a text, if wanted.
pub(crate) fn paint(text: &str, style: Style, color: bool) -> String {
    let code = match style {
        Style::Good => "32",
        Style::Bad => "31",
        Style::Busy => "33",
        Style::Dim => "2",
        Style::Plain => "",
    };
    if color && !code.is_empty() { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
}

/// One cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    /// A cell in a colour.
    pub(crate) fn styled(text: &str, style: Style) -> Self {
        Self { text: clean(text), style }
    }
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::styled(text.as_ref(), Style::Plain)
    }
}

/// The table as text, a line for the titles and one per row, each ended. The last column is never padded.
pub(crate) fn render(titles: &[&str], rows: &[Vec<Cell>], color: bool) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.text.chars().count());
        cells.chain(titles.get(column).map(|title| title.len())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..titles.len()).map(width).collect();
    let titles: Vec<Cell> = titles.iter().map(|title| Cell::styled(title, Style::Dim)).collect();
    let mut text = String::new();
    for row in std::iter::once(&titles).chain(rows) {
        let mut line = String::new();
        let last = row.len().saturating_sub(1);
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            line.push_str(&paint(&cell.text, cell.style, color));
            if column < last {
                line.push_str(&" ".repeat(width.saturating_sub(cell.text.chars().count()) + 3));
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Labelled values, one per line, in one column; empty values are left out.
pub(crate) fn fields(fields: &[(&str, String)]) -> String {
    let filled = || fields.iter().filter(|(_, value)| !value.is_empty());
    let width = filled().map(|(label, _)| label.len()).max().unwrap_or(0);
    filled()
        .map(|(label, value)| format!("{:<width$} {}\n", format!("{label}:"), clean(value), width = width + 2))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [vec!["a".into(), Cell::styled("longer", Style::Good)], vec!["bcd".into(), "x".into()]];
        assert_eq!(render(&["N", "VALUE"], &rows, false), "N     VALUE\na     longer\nbcd   x\n");
    }

    #[test]
    fn colours_do_not_count_as_width() {
        let rows = [vec![Cell::styled("a", Style::Bad), "x".into()]];
        assert_eq!(
            render(&["N", "V"], &rows, true),
            "\u{1b}[2mN\u{1b}[0m   \u{1b}[2mV\u{1b}[0m\n\u{1b}[31ma\u{1b}[0m   x\n"
        );
    }

    #[test]
    fn empty_fields_are_left_out() {
        assert_eq!(fields(&[("A", "1".into()), ("Long", String::new()), ("Bcd", "2".into())]), "A:    1\nBcd:  2\n");
    }
}
