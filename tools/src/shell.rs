//! A path as one word of a shell, and the name of this program, in commands that are printed to be pasted.
//!
//! | path | word | |
//! |---|---|---|
//! | `demo/broker-1.toml` | `demo/broker-1.toml` | nothing in it means anything to a shell |
//! | `my demo`, `it's`, `$HOME` | `'my demo'`, `'it'\''s'`, `'$HOME'` | every shell reads them so |
//! | with a control character, or not UTF-8 | `$'a\012b'` | no terminal obeys them; POSIX since 2024, bash, zsh |
//! | `-x` | `./-x` | else a program would take it for a flag |

use std::{
    env,
    ffi::OsStr,
    fs,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    str,
};

use crate::visible::visible;

/// The name under which this program is installed.
const PROGRAM: &str = "sequor";

/// How to call this program from here: by its name, if a shell finds it under that, else by its path.
pub(crate) fn program() -> String {
    let Ok(path) = env::current_exe() else { return PROGRAM.to_owned() };
    if is_found(&path, env::var_os("PATH").as_deref()) {
        return PROGRAM.to_owned();
    }
    let here = env::current_dir().ok();
    // With the dot: a shell looks for a name without a slash in other places.
    let short = here.and_then(|here| path.strip_prefix(here).ok().map(|path| Path::new(".").join(path)));
    word(&short.unwrap_or(path))
}

/// Whether the name of this program leads a shell to the program at `path`.
fn is_found(path: &Path, search: Option<&OsStr>) -> bool {
    let mut candidates = search.into_iter().flat_map(env::split_paths).map(|folder| folder.join(PROGRAM));
    let real = |path: &PathBuf| fs::canonicalize(path).ok();
    let first = candidates.find(|candidate| candidate.is_file());
    first.is_some_and(|first| real(&first) == real(&path.to_path_buf()))
}

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
    use std::process::Command;

    use super::*;

    #[test]
    fn the_first_of_a_name_is_what_a_shell_finds() {
        let dir = tempfile::tempdir().unwrap();
        let folder = |name: &str| {
            let folder = dir.path().join(name);
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join(PROGRAM), name).unwrap();
            folder
        };
        let (mine, other) = (folder("mine"), folder("other"));
        let found =
            |folders: &[&Path]| is_found(&mine.join(PROGRAM), Some(&env::join_paths(folders).unwrap()));
        assert!(found(&[dir.path(), &mine, &other]));
        assert!(!found(&[&other, &mine]) && !found(&[dir.path()]));
        assert!(!is_found(&mine.join(PROGRAM), None));
    }

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
