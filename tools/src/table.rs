//! A table for people: columns side by side, numbers to the right, and on a terminal its head and some lines in colour.
//!
//! Whatever is not a terminal gets the bare text, and so does whoever sets `NO_COLOR` (<https://no-color.org>).

use std::{
    env,
    io::{self, IsTerminal as _},
    ops::RangeBounds,
};

use comfy_table::{CellAlignment, presets};

/// What a line is to who reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    /// One of many.
    Plain,
    /// What one looks for first.
    Good,
    /// What needs attention.
    Bad,
    /// What is over.
    Faint,
}

impl Tone {
    /// The parameters of the terminal's command for it; none for the usual.
    fn command(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Good => Some("32"),
            Self::Bad => Some("31"),
            Self::Faint => Some("2"),
        }
    }
}

/// Parameters of the terminal's command for the head of a table.
const HEAD: &str = "1";

/// See the file's header. Every row takes one line.
#[derive(Debug)]
pub(crate) struct Table {
    table: comfy_table::Table,
    tones: Vec<Tone>,
}

impl Table {
    /// A table without rows.
    pub(crate) fn new<const COLUMNS: usize>(head: [&str; COLUMNS]) -> Self {
        let mut table = comfy_table::Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(head);
        Self { table, tones: Vec::new() }
    }

    /// Adds a row. What comes from others has to be visible text (`visible.rs`).
    pub(crate) fn row<const COLUMNS: usize>(&mut self, tone: Tone, cells: [String; COLUMNS]) {
        self.table.add_row(cells);
        self.tones.push(tone);
    }

    /// The text of it; the columns `numbers` hold numbers. In colour if stdout shows it to people.
    pub(crate) fn text(self, numbers: impl RangeBounds<usize>) -> String {
        let unwanted = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        self.render(numbers, io::stdout().is_terminal() && !unwanted)
    }

    fn render(mut self, numbers: impl RangeBounds<usize>, in_colour: bool) -> String {
        for (at, column) in self.table.column_iter_mut().enumerate() {
            if at == 0 {
                column.set_padding((0, 1));
            }
            if numbers.contains(&at) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let commands = std::iter::once(Some(HEAD)).chain(self.tones.iter().map(|tone| tone.command()));
        let line = |(line, command): (String, Option<&str>)| match command.filter(|_| in_colour) {
            Some(command) => format!("\u{1b}[{command}m{}\u{1b}[0m\n", line.trim_end()),
            None => format!("{}\n", line.trim_end()),
        };
        self.table.lines().zip(commands).map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(["name", "next", "state"]);
        let row = |name: &str, next: &str, state: &str| [name.to_owned(), next.to_owned(), state.to_owned()];
        table.row(Tone::Plain, row("a", "7", ""));
        table.row(Tone::Faint, row("longer", "1000", "retired"));
        table
    }

    #[test]
    fn columns_stand_side_by_side_from_the_edge_and_no_line_ends_with_spaces() {
        let expected = "\
name    next  state
a          7
longer  1000  retired
";
        assert_eq!(table().render(1..2, false), expected);
    }

    #[test]
    fn colours_change_nothing_but_the_colours() {
        let coloured = table().render(1..2, true);
        let lines: Vec<_> = coloured.lines().collect();
        assert_eq!(
            lines,
            [
                "\u{1b}[1mname    next  state\u{1b}[0m",
                "a          7",
                "\u{1b}[2mlonger  1000  retired\u{1b}[0m"
            ]
        );
    }
}
