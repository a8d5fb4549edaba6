//! The `windlass-operator` binary.

fn main() -> std::process::ExitCode {
    windlass_operator::main()
}
