//! A path as one word of a shell, in commands that are printed to be pasted.
//!
//! | path | word | |
//! |---|---|---|
//! | `demo/broker-1.toml` | `demo/broker-1.toml` | nothing in it means anything to a shell |
//! | `my demo`, `it's`, `$HOME` | `'my demo'`, `'it'\''s'`, `'$HOME'` | every shell reads them so |
//! | with a control character, or not UTF-8 | `$'a\012b'` | no terminal obeys them; POSIX since 2024, bash, zsh |
//! | `-x` | `./-x` | else a program would take it for a flag |

use std::{os::unix::ffi::OsStrExt as _, path::Path, str};

use crate::visible::visible;

/// The word that a shell takes for this path.
pub(crate) fn word(path: &Path) -> String {
    let bytes = path.as_os_str().as_bytes();
    let here = if bytes.starts_with(b"-") { "./" } else { "" };
    match str::from_utf8(bytes) {
        Ok(text) if !text.is_empty() && text.bytes().all(is_plain) => format!("{here}{text}"),
        Ok(text) if visible(text) == text => format!("{here}'{}'", text.replace('\'', r"'\''")),
        _ => format!("{here}$'{}'", bytes.iter().map(|byte| numbered(*byte)).collect::<String>()),
    }
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"/._-+,:@".contains(&byte)
}

/// A byte between `$'` and `'`.
fn numbered(byte: u8) -> String {
    match byte {
        b'\'' | b'\\' => format!("\\{}", char::from(byte)),
        b' ' | 0x21..=0x7e => char::from(byte).to_string(),
        _ => format!("\\{byte:03o}"),
    }
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsStr, process::Command};

    use super::*;

    #[test]
    fn what_means_nothing_to_a_shell_stays() {
        assert_eq!(word(Path::new("./demo_2/broker-1.toml")), "./demo_2/broker-1.toml");
        assert_eq!(word(Path::new("-demo")), "./-demo");
    }

    #[test]
    fn a_shell_reads_back_the_path() {
        for path in
            ["my demo", "it's", "$HOME;`x`", "~", "a\\b", "\"q\"", "*?[a]", "#x", "&|<>(){}!", "a=b", "ä"]
        {
            let script = format!("printf %s {}", word(Path::new(path)));
            let output = Command::new("sh").args(["-c", &script]).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), path, "{script}");
        }
    }

    #[test]
    fn what_no_terminal_may_see_is_numbered() {
        assert_eq!(word(Path::new("a\nb's\u{1b}")), r"$'a\012b\'s\033'");
        assert_eq!(word(Path::new(OsStr::from_bytes(b"\xff \\"))), r"$'\377 \\'");
        assert_eq!(word(Path::new("")), "''");
    }
}
