//! The example program, run as people run it.

use std::path::PathBuf;
use std::process::{Command, Output};

/// The example is built with the tests, beside their own executable.
fn run(arguments: &[&str]) -> Output {
    let mut program: PathBuf = std::env::current_exe().expect("the test's own path");
    program.pop();
    program.pop();
    program.push(format!("examples/set{}", std::env::consts::EXE_SUFFIX));
    Command::new(program).args(arguments).output().expect("the example runs")
}

#[test]
fn the_example_prints_the_bytes_or_the_refusal() {
    let file = std::env::temp_dir().join(format!("yaml-pin-example-{}.yaml", std::process::id()));
    let name = file.to_str().expect("a UTF-8 path");
    std::fs::write(&file, "kind: A\r\nmetadata: {name: x}\r\ntag: 1.2.3 # c").expect("a temporary file");
    let edited = run(&[name, "A/x", "tag", "1.20"]);
    let refused = run(&[name, "A/x", "tags", "1.20"]);
    let malformed = run(&[name, "A/x", "tag[", "1.20"]);
    std::fs::write(&file, b"\xff").expect("a temporary file");
    let binary = run(&[name, "#0", "tag", "1.20"]);
    std::fs::remove_file(&file).expect("the temporary file");
    assert_eq!(edited.stdout, b"kind: A\r\nmetadata: {name: x}\r\ntag: \"1.20\" # c");
    assert!(edited.status.success() && edited.stderr.is_empty());
    for (output, code) in
        [(refused, "path-not-found"), (malformed, "syntax"), (binary, "not-utf8"), (run(&[name, "#0", "a", "b"]), "")]
    {
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
        assert!(String::from_utf8_lossy(&output.stderr).contains(code), "{output:?}");
    }
    assert_eq!(run(&[name, "#0", "a"]).status.code(), Some(2));
}
