//! The fuzz corpus, and inputs derived from it by cutting and flipping, on the stable toolchain.

use std::path::Path;

use crate::fuzz_body::run;

fn corpus() -> Vec<(String, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/yaml_pin_set");
    let mut inputs: Vec<_> = std::fs::read_dir(directory)
        .expect("the fuzz corpus")
        .map(|entry| {
            let entry = entry.expect("an entry");
            (entry.file_name().to_string_lossy().into_owned(), std::fs::read(entry.path()).expect("an input"))
        })
        .collect();
    inputs.sort();
    inputs
}

/// The corpus files whose names start with `edit-` must be edited, so that the body cannot go idle unnoticed.
#[test]
fn the_corpus_holds_every_promise() {
    let inputs = corpus();
    assert!(inputs.len() >= 20, "the corpus is missing");
    for (name, input) in inputs {
        assert_eq!(run(&input), name.starts_with("edit-"), "{name}");
    }
}

#[test]
fn damaged_inputs_hold_every_promise_too() {
    for (_, input) in corpus() {
        let header = input.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at).nth(3).unwrap_or(0);
        for at in header..input.len() {
            run(&input[..at]);
            // Two of these a place, in turn, keep this fast; the fuzz target tries the rest.
            let bytes = b"\n:#'\"&*{[|- ";
            for byte in [bytes[at % bytes.len()], bytes[(at * 5 + 3) % bytes.len()]] {
                let mut damaged = input.clone();
                damaged[at] = byte;
                run(&damaged);
            }
        }
    }
}
