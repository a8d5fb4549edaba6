//! Which snapshot class fits a volume.
//!
//! The snapshot controller resolves a default per driver, and refuses more than one; for an explicit class it does not check
//! the driver at all and would hand one driver's volume to another. Both are checked here, before anything is created.

use std::fmt;

use kube::ResourceExt as _;
use windlass_api::foreign::VolumeSnapshotClass;

const DEFAULT: &str = "snapshot.storage.kubernetes.io/is-default-class";

/// Why no class fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClassRefusal {
    /// There is no class for the driver, or none of the name asked for.
    None(String),
    /// Several would do and nothing says which.
    Ambiguous(String),
    /// The class asked for belongs to another driver.
    OtherDriver(String),
}

impl ClassRefusal {
    /// The refusal code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::None(_) => "no-snapshot-class",
            Self::Ambiguous(_) => "snapshot-class-ambiguous",
            Self::OtherDriver(_) => "snapshot-class-other-driver",
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::None(_) => "make a VolumeSnapshotClass for the driver of the volume",
            Self::Ambiguous(_) => "name one in the app's `snapshots.className`, or mark exactly one as the default",
            Self::OtherDriver(_) => "name a class of the volume's own driver in the app's `snapshots.className`",
        }
    }
}

impl fmt::Display for ClassRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None(text) | Self::Ambiguous(text) | Self::OtherDriver(text) => f.write_str(text),
        }
    }
}

/// The class for volumes of `driver`: the one asked for if it is of that driver; else the driver's only default; else the
/// driver's only class.
pub fn resolve(asked: Option<&str>, driver: &str, classes: &[VolumeSnapshotClass]) -> Result<String, ClassRefusal> {
    let driver_of = |class: &VolumeSnapshotClass| class.spec.driver.clone().unwrap_or_default();
    if let Some(asked) = asked {
        let Some(class) = classes.iter().find(|class| class.name_any() == asked) else {
            return Err(ClassRefusal::None(format!("there is no snapshot class {asked}")));
        };
        let theirs = driver_of(class);
        return if theirs == driver {
            Ok(asked.to_owned())
        } else {
            Err(ClassRefusal::OtherDriver(format!(
                "snapshot class {asked} is of driver {theirs}, the volume of driver {driver}"
            )))
        };
    }
    let fitting: Vec<&VolumeSnapshotClass> = classes.iter().filter(|class| driver_of(class) == driver).collect();
    let defaults: Vec<&VolumeSnapshotClass> = fitting
        .iter()
        .copied()
        .filter(|class| class.annotations().get(DEFAULT).is_some_and(|value| value == "true"))
        .collect();
    match (defaults.as_slice(), fitting.as_slice()) {
        ([only], _) | ([], [only]) => Ok(only.name_any()),
        ([], []) => Err(ClassRefusal::None(format!("there is no snapshot class for driver {driver}"))),
        ([], several) => Err(ClassRefusal::Ambiguous(format!(
            "driver {driver} has the snapshot classes {}, and none is the default",
            names(several)
        ))),
        (several, _) => Err(ClassRefusal::Ambiguous(format!(
            "driver {driver} has several default snapshot classes: {}",
            names(several)
        ))),
    }
}

fn names(classes: &[&VolumeSnapshotClass]) -> String {
    let mut names: Vec<String> = classes.iter().map(|class| class.name_any()).collect();
    names.sort();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    fn class(name: &str, driver: &str, default: bool) -> VolumeSnapshotClass {
        from_value(json!({
            "metadata": { "name": name, "annotations": { DEFAULT: default.to_string() } },
            "driver": driver, "deletionPolicy": "Delete"
        }))
        .unwrap()
    }

    #[test]
    fn a_class_is_found_or_refused_with_its_reason() {
        let one = vec![class("a", "d", false)];
        let two = vec![class("a", "d", false), class("b", "d", false)];
        let default = vec![class("a", "d", false), class("b", "d", true), class("c", "other", true)];
        let defaults = vec![class("a", "d", true), class("b", "d", true)];
        for (asked, classes, expected) in [
            (None, &one, Ok("a")),
            (None, &default, Ok("b")),
            (Some("a"), &defaults, Ok("a")),
            (None, &two, Err("snapshot-class-ambiguous")),
            (None, &defaults, Err("snapshot-class-ambiguous")),
            (None, &vec![], Err("no-snapshot-class")),
            (None, &vec![class("c", "other", true)], Err("no-snapshot-class")),
            (Some("gone"), &one, Err("no-snapshot-class")),
            (Some("c"), &default, Err("snapshot-class-other-driver")),
        ] {
            let seen = resolve(asked, "d", classes);
            let seen = seen.as_ref().map(String::as_str).map_err(ClassRefusal::code);
            assert_eq!(seen, expected, "asked for {asked:?}");
        }
    }
}
