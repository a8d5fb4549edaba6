//! Git writers and Git-driven deliveries (Flux).
