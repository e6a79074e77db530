//! Text of others, before it is shown to people.
//!
//! The name of a producer, an address in a context file, the reason that a peer gives for closing a connection: whoever
//! wrote them may have put in what moves the cursor, recolours the terminal or turns the direction of writing, and so
//! make a message say something else than it does. Such characters are shown as their numbers.

use std::path::Path;

/// `text` in one line, with nothing in it that a terminal would obey.
pub(crate) fn visible(text: &str) -> String {
    escaped(text, obeyed)
}

/// The same for a text of several lines.
pub(crate) fn visible_lines(text: &str) -> String {
    escaped(text, |character| character != '\n' && obeyed(character))
}

/// The same for a path.
pub(crate) fn visible_path(path: &Path) -> String {
    visible(&path.to_string_lossy())
}

fn escaped(text: &str, hide: impl Fn(char) -> bool) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if hide(character) {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// Whether it is an instruction and not a sign: control characters, other ends of lines, directions of writing.
fn obeyed(character: char) -> bool {
    let separator_or_direction = matches!(
        character,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    );
    character.is_control() || separator_or_direction
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_and_instructions_are_shown() {
        assert_eq!(visible("import/1 \"käse\" 日本 e\u{301}"), "import/1 \"käse\" 日本 e\u{301}");
        assert_eq!(visible("a\u{1b}[2Jb\r\n\t\0"), r"a\u{1b}[2Jb\r\n\t\u{0}");
        assert_eq!(visible("\u{9b}31m \u{202e}txt.exe \u{7f}"), r"\u{9b}31m \u{202e}txt.exe \u{7f}");
    }

    #[test]
    fn several_lines_stay_several() {
        assert_eq!(visible_lines("first\nsecond\u{1b}c\n"), "first\nsecond\\u{1b}c\n");
    }
}
