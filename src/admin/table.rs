//! Columns side by side, each as wide as its widest cell and no wider.

use super::readable::{harmless, width};
use super::style::{Paint, Style};

/// Where a column's text stands.
#[derive(Clone, Copy)]
pub(super) enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// One field of a table.
pub(super) struct Cell {
    text: String,
    paint: Paint,
}

impl Cell {
    pub(super) fn new(text: impl AsRef<str>) -> Self {
        Self::painted(text, Paint::Plain)
    }

    pub(super) fn painted(text: impl AsRef<str>, paint: Paint) -> Self {
        Self { text: harmless(text.as_ref(), false).into_owned(), paint }
    }

    /// What stands for nothing.
    pub(super) fn none() -> Self {
        Self::painted("-", Paint::Faint)
    }

    fn width(&self) -> usize {
        width(&self.text)
    }
}

impl From<Option<&str>> for Cell {
    fn from(text: Option<&str>) -> Self {
        text.filter(|text| !text.is_empty()).map_or_else(Self::none, Self::new)
    }
}

/// A table in the making.
pub(super) struct Table<const COLUMNS: usize> {
    aligns: [Align; COLUMNS],
    rows: Vec<[Cell; COLUMNS]>,
}

impl<const COLUMNS: usize> Table<COLUMNS> {
    /// A table with a heading over each column; an empty one is no line.
    pub(super) fn new(columns: [(&str, Align); COLUMNS]) -> Self {
        let heading = columns.map(|(name, _)| Cell::painted(name, Paint::Heading));
        Self { aligns: columns.map(|(_, align)| align), rows: vec![heading] }
    }

    pub(super) fn row(&mut self, cells: [Cell; COLUMNS]) {
        self.rows.push(cells);
    }

    /// The lines, each with its end, and none with blanks before it.
    pub(super) fn lines(&self, style: Style) -> String {
        let widths: [usize; COLUMNS] = std::array::from_fn(|column| {
            self.rows.iter().map(|row| row[column].width()).max().unwrap_or_default()
        });
        let mut page = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for ((cell, align), width) in row.iter().zip(self.aligns).zip(widths) {
                let padding = " ".repeat(width - cell.width());
                let text = style.paint(cell.paint, &cell.text);
                if !line.is_empty() {
                    line.push_str("  ");
                }
                match align {
                    Align::Left => line.push_str(&(text + &padding)),
                    Align::Right => line.push_str(&(padding + &text)),
                }
            }
            page.push_str(line.trim_end());
            page.push('\n');
        }
        page
    }
}

#[cfg(test)]
mod tests {
    use super::super::style::COLOURED;
    use super::*;

    fn table() -> Table<3> {
        let mut table = Table::new([("name", Align::Left), ("n", Align::Right), ("why", Align::Left)]);
        table.row([Cell::new("sms"), Cell::new("12"), Cell::from(Some("a\nb"))]);
        table.row([Cell::new("…é"), Cell::new("1,204"), Cell::from(None)]);
        table
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_lines_end_where_their_text_does() {
        let lines = "name      n  why\nsms      12  a\u{fffd}b\n…é    1,204  -\n";
        assert_eq!(table().lines(Style::PLAIN), lines);
    }

    #[test]
    fn colours_take_no_room() {
        let coloured = table().lines(COLOURED);
        assert!(coloured.contains("\u{1b}[1mname\u{1b}[0m      \u{1b}[1mn\u{1b}[0m"), "{coloured:?}");
        let stripped = ["\u{1b}[0m", "\u{1b}[1m", "\u{1b}[2m"]
            .iter()
            .fold(coloured, |text, sequence| text.replace(sequence, ""));
        assert_eq!(stripped, table().lines(Style::PLAIN));
    }
}
