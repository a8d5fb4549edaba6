//! Fuzzes `yaml_pin::set`. The body is that of the library's own corpus test.
#![no_main]

#[path = "../../crates/yaml-pin/tests/it/fuzz_body.rs"]
mod fuzz_body;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    fuzz_body::run(input);
});
