//! Columns as wide as their widest cell.

use super::Style;

#[derive(Debug)]
pub(crate) struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

/// How a cell's text looks; chosen by the caller after the width is known, so that colour codes never count as width.
type Paint = fn(Style, column: usize, text: &str) -> String;

impl Table {
    pub(crate) fn new(head: &[&'static str]) -> Self {
        Self {
            head: head.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row; missing cells are empty.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = impl Into<String>>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(crate) fn render(&self, style: Style) -> String {
        self.render_with(style, |_, _, text| text.to_owned())
    }

    pub(crate) fn render_with(&self, style: Style, paint: Paint) -> String {
        let widths = self.widths();
        let mut text = String::new();
        let head: Vec<String> = self.head.iter().map(|name| (*name).to_owned()).collect();
        line(&mut text, &head, &widths, |_, cell| style.quiet(cell));
        for row in &self.rows {
            line(&mut text, row, &widths, |column, cell| {
                paint(style, column, cell)
            });
        }
        text
    }

    fn widths(&self) -> Vec<usize> {
        let mut widths: Vec<usize> = self.head.iter().map(|name| name.chars().count()).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        widths
    }
}

/// The last cell is not padded, so no line ends in spaces.
fn line(
    text: &mut String,
    cells: &[String],
    widths: &[usize],
    paint: impl Fn(usize, &str) -> String,
) {
    let mut written = String::new();
    let mut gap = 0;
    for (column, (cell, width)) in cells.iter().zip(widths).enumerate() {
        if cell.is_empty() {
            gap += width + 2;
            continue;
        }
        written.push_str(&" ".repeat(gap));
        written.push_str(&paint(column, cell));
        gap = width - cell.chars().count() + 2;
    }
    text.push_str(&written);
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_with_and_without_colour() {
        let mut table = Table::new(&["NAME", "STATE"]);
        table.row(["identity", "ready"]);
        table.row(["größe", ""]);
        table.row(["", "late"]);
        assert_eq!(
            table.render(Style::new(false)),
            "NAME      STATE\nidentity  ready\ngröße\n          late\n"
        );
        let coloured = table.render_with(Style::new(true), |style, _, text| style.good(text));
        assert!(
            coloured.contains("\x1b[32midentity\x1b[0m  \x1b[32mready"),
            "{coloured:?}"
        );
    }
}
