//! A durable operation of two steps that has nothing to do with apps: an order is paid, then sent. Two processes die in
//! the middle of it. The next one goes on from the journal, and nothing is done twice.
//!
//! `cargo run -p upgrade-core --example two_steps`. Whoever embeds the engine writes a [`StepRunner`], which knows what
//! the steps do, a [`Guard`], which knows whether this process may act, and a store that outlives the process.
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use upgrade_core::Failure;
use upgrade_core::engine::{
    Effect, Engine, Guard, GuardState, Journal, MemoryStore, Observation, Plan, Step, StepContext, StepRunner,
};
use upgrade_core::ports::{Clock, JournalStore as _};

const OPERATION: &str = "order-7";

/// Everything outside, which outlives the processes: the effects that were made, in order.
#[derive(Default)]
struct World(Mutex<Vec<String>>);

impl World {
    fn effects(&self) -> MutexGuard<'_, Vec<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When a process dies.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dies {
    /// Its intent is in the journal, and the effect is not made.
    BeforeTheEffect,
    /// The effect is made, and the journal does not know.
    AfterTheEffect,
    Never,
}

struct Process<'a> {
    world: &'a World,
    dies: Dies,
}

#[async_trait]
impl StepRunner for Process<'_> {
    fn workflows(&self) -> &'static [&'static str] {
        &["order"]
    }

    /// Written before anything is done: by this, whoever comes after us knows what to look for.
    async fn prepare(&self, cx: StepContext<'_>) -> Result<Value, Failure> {
        Ok(json!({ "effect": cx.step.id }))
    }

    /// At most one effect. It is never asked for where [`StepRunner::observe`] has seen it.
    async fn act(&self, cx: StepContext<'_>) -> Result<Effect, Failure> {
        if self.dies == Dies::BeforeTheEffect {
            die().await;
        }
        self.world.effects().push(cx.step.id.clone());
        if self.dies == Dies::AfterTheEffect {
            die().await;
        }
        Ok(Effect::Made)
    }

    /// Looks at the world, and not at what this process remembers: another one may have made it.
    async fn observe(&self, cx: StepContext<'_>) -> Result<Observation, Failure> {
        let is_there = self.world.effects().contains(&cx.step.id);
        Ok(if is_there { Observation::Done(json!({ "seen": cx.step.id })) } else { Observation::absent() })
    }
}

/// Nobody else acts here. A real guard is a lease that lapses.
struct Alone;

impl Guard for Alone {
    fn state(&self) -> GuardState {
        GuardState::Held
    }
}

struct Machine;

#[async_trait]
impl Clock for Machine {
    // A real one does not go backwards when somebody sets the machine's clock.
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    async fn sleep(&self, duration: SignedDuration) {
        std::thread::sleep(duration.try_into().unwrap_or_default());
    }
}

/// Whoever awaits this does nothing more.
async fn die() {
    std::future::pending::<()>().await;
}

/// Runs until the end, or until it does nothing more: nothing here waits for anything. A runtime does this elsewhere.
fn outcome_of<F: Future>(running: F) -> Option<F::Output> {
    match pin!(running).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => Some(outcome),
        Poll::Pending => None,
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (world, store) = (World::default(), MemoryStore::default());
    let minute = SignedDuration::from_mins(1);
    let steps = vec![
        // `undone_by` would have it undone when the next step fails before its intent is written.
        Step::new("pay", "take the money", Value::Null, minute),
        Step::new("send", "send the parcel", Value::Null, minute).irrevocable(),
    ];
    // Fixed and stored before the first effect; who runs it later has to know the operation's name only.
    let plan = Plan::new("order", OPERATION, json!({ "order": 7 }), steps)?;
    let journal = Journal::new(&plan, Machine.now());
    outcome_of(store.save(OPERATION, &plan, &journal, None)).ok_or("the store hangs")??;

    for dies in [Dies::BeforeTheEffect, Dies::AfterTheEffect, Dies::Never] {
        let process = Process { world: &world, dies };
        let engine = Engine { store: &store, runner: &process, guard: &Alone, clock: &Machine };
        match outcome_of(engine.run(OPERATION, &|| false)) {
            None => println!("the process has died; made so far: {:?}", world.effects()),
            Some(outcome) => println!("{:?}; made: {:?}", outcome?, world.effects()),
        }
    }
    // The first process made nothing, the second one paid without knowing it, the third one saw that and sent.
    assert_eq!(*world.effects(), ["pay", "send"]);
    Ok(())
}

#[test]
fn each_effect_is_made_once_although_two_processes_died() {
    main().unwrap();
}
