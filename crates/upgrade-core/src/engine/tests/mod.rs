//! The engine against a workflow that has nothing to do with apps: moving crates between shelves. Every step makes one effect
//! on a small world that can fail, be slow, lose replies and outlive a crash of the engine.

mod bounds;
mod guards;
mod pauses;
mod properties;
mod tables;
mod world;
