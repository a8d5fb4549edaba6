//! Change one YAML scalar and touch nothing else.
