//! What users read of the command line: the help of every command, as it is checked in, and what is made from the same
//! definition, completions and manual pages.
//!
//! A difference means that users see something else than before. If that is meant, run
//! `SEQUOR_GOLDEN=write cargo test -p sequor --test help`, look at what changed, and commit it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cluster;

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};

use cluster::sequor;

/// Runs the program as if nobody had a terminal, so that lines have their default width; what it prints.
fn printed(args: &[&str]) -> String {
    let output =
        sequor().env_remove("COLUMNS").env_remove("LINES").stdin(Stdio::null()).args(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The commands that a help lists.
fn listed(help: &str) -> Vec<&str> {
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let commands = commands.take_while(|line| !line.is_empty());
    // A line that goes on with a description begins further in.
    let names = commands.filter_map(|line| line.strip_prefix("  ")).filter(|line| !line.starts_with(' '));
    names.filter_map(|line| line.split(' ').next()).filter(|name| *name != "help").collect()
}

/// Every command with its help, the program itself first.
fn all() -> Vec<(Vec<String>, String)> {
    let mut all: Vec<(Vec<String>, String)> = vec![(Vec::new(), printed(&["--help"]))];
    let mut next = 0;
    while next < all.len() {
        let (command, help) = all[next].clone();
        for name in listed(&help) {
            let command = [&command[..], &[name.to_owned()]].concat();
            let args: Vec<_> = command.iter().map(String::as_str).chain(["--help"]).collect();
            let help = printed(&args);
            all.push((command, help));
        }
        next += 1;
    }
    all
}

#[test]
fn the_help_of_every_command_is_as_it_was() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let write = std::env::var("SEQUOR_GOLDEN").is_ok_and(|value| value == "write");
    let all = all();
    for name in ["append", "tail", "completions", "man"] {
        assert!(all.iter().any(|(command, _)| *command == [name]), "{name} is not listed");
    }
    for name in ["verify", "dump"] {
        assert!(all.iter().any(|(command, _)| *command == ["wal", name]), "wal {name} is not listed");
    }
    for (command, help) in &all {
        let name = if command.is_empty() { "sequor".to_owned() } else { command.join("-") };
        let path = folder.join(format!("help-{name}.txt"));
        if write {
            fs::create_dir_all(&folder).unwrap();
            fs::write(&path, help).unwrap();
        }
        let expected =
            fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(*help, expected, "{} differs from what the program says now", path.display());
    }
    let found = fs::read_dir(folder).unwrap().count();
    assert_eq!(found, all.len(), "a golden file is left over from a command that is gone");
}

#[test]
fn every_command_that_does_something_has_an_example() {
    let all = all();
    let does = all.iter().filter(|(_, help)| listed(help).is_empty());
    for (command, help) in does {
        assert!(help.contains("Examples:\n  "), "{command:?} has no example");
        assert!(help.contains(&format!("sequor {}", command.join(" "))), "{command:?} shows no use of it");
    }
}

#[test]
fn completions_are_made_for_every_shell() {
    for (shell, word) in
        [("bash", "complete -F _sequor"), ("zsh", "#compdef sequor"), ("fish", "complete -c sequor")]
    {
        let script = printed(&["completions", shell]);
        for word in [word, "quickstart", "verify", "key-separator"] {
            assert!(script.contains(word), "{word} is not in what {shell} gets");
        }
        let Ok(mut child) = Command::new(shell).arg("-n").stdin(Stdio::piped()).spawn() else { continue };
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), script.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "{shell} reads its script");
    }
    assert_eq!(sequor().args(["completions", "tcsh"]).output().unwrap().status.code(), Some(2));
}

#[test]
fn bash_completes_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("sequor.bash");
    fs::write(&script, printed(&["completions", "bash"])).unwrap();
    let completed = |words: &str| {
        let words = format!(
            "source '{}'; COMP_WORDS=({words} ''); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _sequor sequor '' ''; \
             echo \"${{COMPREPLY[@]}}\"",
            script.display()
        );
        let output = Command::new("bash").args(["--norc", "-c", &words]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let commands = completed("sequor wal");
    assert!(commands.contains("verify") && commands.contains("dump"), "{commands}");
    assert!(completed("sequor").contains("completions"));
}

#[test]
fn every_command_gets_a_page_of_the_manual() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("share/man1");
    let told = printed(&["man", folder.to_str().unwrap()]);
    let pages: Vec<_> = fs::read_dir(&folder).unwrap().map(|page| page.unwrap().path()).collect();
    assert!(told.starts_with(&format!("{} pages; ", pages.len())), "{told}");
    for (command, _) in all() {
        let name = [&["sequor".to_owned()], &command[..]].concat().join("-");
        let page = fs::read_to_string(folder.join(format!("{name}.1"))).unwrap();
        assert!(page.contains(&format!(".TH {name} 1")), "{page}");
        assert!(page.contains(".SH SYNOPSIS") && page.contains(".SH OPTIONS"), "{page}");
    }
    assert_eq!(pages.len(), all().len());
    let main = printed(&["man"]);
    assert_eq!(main, fs::read_to_string(folder.join("sequor.1")).unwrap());

    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let refused = sequor().arg("man").arg(&file).output().unwrap();
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("cannot write "), "{refused:?}");
}
