//! Named, timed steps and their summary.

use std::time::{Duration, Instant};

use anyhow::Context;

/// How a step ended, if it did not fail.
pub(crate) enum Outcome {
    /// All of it was done.
    Done,
    /// It was left out, for this reason.
    Skipped(String),
}

/// The steps taken so far.
#[derive(Default)]
pub(crate) struct Steps(Vec<(&'static str, Duration, Outcome)>);

impl Steps {
    /// Takes one step.
    ///
    /// # Errors
    /// When the step fails; with its name.
    pub(crate) fn take(
        &mut self,
        name: &'static str,
        step: impl FnOnce() -> anyhow::Result<Outcome>,
    ) -> anyhow::Result<()> {
        println!("==> {name}");
        let began = Instant::now();
        let outcome = step().with_context(|| {
            let passed: Vec<_> = self.0.iter().map(|(name, ..)| *name).collect();
            format!(
                "step `{name}` failed after {:.1} s (before it: {})",
                began.elapsed().as_secs_f64(),
                passed.join(", ")
            )
        })?;
        self.0.push((name, began.elapsed(), outcome));
        Ok(())
    }

    /// The durations, and what was skipped and why.
    pub(crate) fn summary(&self) -> String {
        let mut text = String::from("\nAll steps passed:\n");
        for (name, duration, outcome) in &self.0 {
            let note = match outcome {
                Outcome::Done => String::new(),
                Outcome::Skipped(reason) => format!("  SKIPPED: {reason}"),
            };
            text += &format!("  {:>7.1} s  {name}{note}\n", duration.as_secs_f64());
        }
        let total: Duration = self.0.iter().map(|(_, duration, _)| *duration).sum();
        text + &format!("  {:>7.1} s  in all\n", total.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_names_what_was_skipped_and_why() {
        let mut steps = Steps::default();
        steps.take("one", || Ok(Outcome::Done)).unwrap();
        steps.take("two", || Ok(Outcome::Skipped("no Go".to_owned()))).unwrap();
        let summary = steps.summary();
        assert!(summary.contains("one\n") && summary.contains("two  SKIPPED: no Go"), "{summary}");
    }

    #[test]
    fn a_failing_step_says_which_one_it_was() {
        let mut steps = Steps::default();
        steps.take("one", || Ok(Outcome::Done)).unwrap();
        let error = steps.take("two", || anyhow::bail!("broken")).unwrap_err();
        assert!(format!("{error:#}").starts_with("step `two` failed"), "{error:#}");
    }
}
