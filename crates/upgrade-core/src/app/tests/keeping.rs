//! What is kept and what is deleted: restore points, and volumes that a restore replaced.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use proptest::prelude::*;

use super::builders::at;
use crate::app::replaced::{self, CutFrom, fate, holds};
use crate::app::retention::{Fate, PointFacts, RequestFacts, RetentionPolicy, Usability, held_for, retention};
use crate::ports::{ReclaimPolicy, ReplacedVolume, VolumeState};

const DAY: i64 = 86_400;
const NOW: i64 = 100 * DAY;

fn policy(keep_last: usize, days: i64) -> RetentionPolicy {
    RetentionPolicy { keep_last, max_age: SignedDuration::from_secs(days * DAY) }
}

/// A usable restore point, so many days old.
fn point(name: &str, days: i64) -> PointFacts {
    PointFacts {
        name: name.into(),
        taken_at: at(NOW - days * DAY),
        void: false,
        usable: Usability::Usable,
        deleting: false,
        holds_volumes: false,
    }
}

fn request(points: &[&str], over: bool, leaves: bool) -> RequestFacts {
    let points = points.iter().map(|point| (*point).to_owned()).collect();
    RequestFacts { name: "UpgradeRequest notes-9".into(), points, over, leaves }
}

fn expired(points: &[PointFacts], policy: RetentionPolicy, requests: &[RequestFacts]) -> Vec<String> {
    let fates = retention(points, policy, at(NOW), requests);
    assert_eq!(fates.len(), points.len());
    fates.into_iter().filter(|(_, fate)| matches!(fate, Fate::Expire(_))).map(|(name, _)| name).collect()
}

#[test]
fn one_expires_when_it_is_neither_young_nor_among_the_newest() {
    let points: Vec<PointFacts> = [("a", 1), ("b", 3), ("c", 8), ("d", 9), ("e", 30)].map(|(n, d)| point(n, d)).into();
    let cases: &[(usize, i64, &[&str])] = &[
        (1, 7, &["c", "d", "e"]),
        (2, 7, &["c", "d", "e"]),
        (3, 7, &["d", "e"]),
        (5, 7, &[]),
        (1, 2, &["b", "c", "d", "e"]),
        (1, 100, &[]),
        // What the schema refuses keeps the newest all the same.
        (0, 0, &["b", "c", "d", "e"]),
    ];
    for (keep_last, days, expected) in cases {
        assert_eq!(expired(&points, policy(*keep_last, *days), &[]), *expected, "last {keep_last}, {days} days");
    }
}

type Change = fn(&mut Vec<PointFacts>, &mut Vec<RequestFacts>);

#[test]
fn each_reason_to_keep_one_keeps_it() {
    let cases: &[(&str, &[&str], Change)] = &[
        ("nothing special", &["b", "c"], |_, _| {}),
        ("a request runs", &[], |_, requests| requests.push(request(&[], false, false))),
        ("an ended one left something", &["c"], |_, requests| requests.push(request(&["b"], true, true))),
        ("an ended one left nothing", &["b", "c"], |_, requests| requests.push(request(&["b"], true, false))),
        ("volumes are noted on it", &["c"], |points, _| points[1].holds_volumes = true),
        ("it is being deleted", &["c"], |points, _| points[1].deleting = true),
        ("it could not be looked at", &["c"], |points, _| points[1].usable = Usability::Unknown),
        ("the newest is void: the next is the newest", &["a", "c"], |points, _| points[0].void = true),
        ("the newest could not be looked at", &["c"], |points, _| points[0].usable = Usability::Unknown),
        ("the newest is unusable", &["c"], |points, _| points[0].usable = Usability::Unusable("gone".into())),
        ("the newest is being deleted", &["c"], |points, _| points[0].deleting = true),
        ("none is proven", &[], |points, _| points.iter_mut().for_each(|point| point.usable = Usability::Unknown)),
        ("all are unusable", &[], |points, _| {
            points.iter_mut().for_each(|point| point.usable = Usability::Unusable("gone".into()));
        }),
        ("void ones go by age alone", &["a", "b", "c"], |points, _| {
            points.iter_mut().for_each(|point| point.void = true);
        }),
        ("void ones wait for requests, too", &["a", "c"], |points, requests| {
            points.iter_mut().for_each(|point| point.void = true);
            requests.push(request(&["b"], true, true));
        }),
    ];
    for (why, expected, change) in cases {
        let mut points: Vec<PointFacts> = [("a", 10), ("b", 20), ("c", 30)].map(|(n, d)| point(n, d)).into();
        let mut requests = Vec::new();
        change(&mut points, &mut requests);
        assert_eq!(expired(&points, policy(1, 7), &requests), *expected, "{why}");
    }
}

#[test]
fn a_clock_that_runs_behind_makes_nothing_old() {
    let points = [point("a", -2), point("b", -1)];
    assert_eq!(expired(&points, policy(1, 1), &[]), [""; 0]);
}

#[test]
fn a_deletion_by_hand_waits_for_unfinished_requests_only() {
    assert!(held_for("a", &[request(&["a"], false, false)]).is_some());
    assert_eq!(held_for("b", &[request(&["a"], false, false)]), None);
    assert_eq!(held_for("a", &[request(&["a"], true, true)]), None);
}

fn noted() -> ReplacedVolume {
    ReplacedVolume {
        volume: "pv-old".into(),
        uid: "u".into(),
        handle: "h".into(),
        claim: "data".into(),
        claim_uid: "c".into(),
    }
}

fn released() -> VolumeState {
    VolumeState {
        uid: "u".into(),
        reclaim_policy: ReclaimPolicy::Retain,
        phase: "Released".into(),
        claim: Some(("notes".into(), "data".into(), Some("c".into()))),
        driver: "csi.test".into(),
        handle: "h".into(),
        capacity: 1,
    }
}

#[test]
fn a_replaced_volume_is_deleted_only_as_the_restore_left_it_and_after_its_time() {
    type Case = (&'static str, &'static str, fn(&mut ReplacedVolume, &mut VolumeState));
    let cases: &[Case] = &[
        ("as it was left", "reclaim", |_, _| {}),
        ("recorded by name only", "reclaim", |noted, _| {
            (noted.uid, noted.handle, noted.claim_uid) = Default::default();
        }),
        ("replaced", "forget", |_, state| state.uid = "other".into()),
        ("another disk", "forget", |_, state| state.handle = "other".into()),
        ("bound again", "forget", |_, state| state.phase = "Bound".into()),
        ("freed by hand", "forget", |_, state| (state.phase, state.claim) = ("Available".into(), None)),
        ("reserved by hand", "forget", |_, state| {
            state.phase = "Available".into();
            state.claim = Some(("notes".into(), "data".into(), None));
        }),
        ("reserved for another", "forget", |_, state| {
            state.claim = Some(("notes".into(), "other".into(), Some("c".into())));
        }),
        ("of another namespace", "forget", |_, state| {
            state.claim = Some(("wiki".into(), "data".into(), Some("c".into())));
        }),
        ("of a later claim", "forget", |_, state| {
            state.claim = Some(("notes".into(), "data".into(), Some("later".into())));
        }),
        ("on its way", "going", |_, state| state.reclaim_policy = ReclaimPolicy::Delete),
        ("stuck", "wait", |_, state| state.phase = "Failed".into()),
    ];
    for (why, expected, change) in cases {
        let (mut noted, mut state) = (noted(), released());
        change(&mut noted, &mut state);
        let word = |fate: replaced::Fate| match fate {
            replaced::Fate::Keep => "keep",
            replaced::Fate::Reclaim => "reclaim",
            replaced::Fate::Going => "going",
            replaced::Fate::Needed(_) => "needed",
            replaced::Fate::Wait(_) => "wait",
            replaced::Fate::Forget(_) => "forget",
        };
        let of = |user: Option<&str>, points: &[CutFrom], now| {
            word(fate(&noted, at(10), "notes", Some(&state), user, points, at(now)))
        };
        assert_eq!(of(None, &[], 9), "keep", "{why}");
        assert_eq!(of(None, &[], 10), *expected, "{why}");
        assert_ne!(of(Some("node-1"), &[], 10), "reclaim", "{why}, but in use");
        let needed = of(None, &[cut_from("p", "pv-old", "h")], 10);
        assert_eq!(needed, if *expected == "reclaim" { "needed" } else { *expected }, "{why}, with a copy");
    }
    assert_eq!(fate(&noted(), at(10), "notes", None, None, &[], at(10)), replaced::Fate::Forget("it is gone".into()));
}

fn cut_from(point: &str, volume: &str, handle: &str) -> CutFrom {
    CutFrom { point: point.into(), volumes: vec![("other".into(), "o".into()), (volume.into(), handle.into())] }
}

#[test]
fn a_replaced_volume_stays_while_a_restore_point_was_cut_from_it() {
    let of = |noted: &ReplacedVolume, points: &[CutFrom]| {
        fate(noted, at(10), "notes", Some(&released()), None, points, at(10))
    };
    let needed = |points: &[&str]| replaced::Fate::Needed(points.iter().map(|point| (*point).to_owned()).collect());
    let by_name = ReplacedVolume { handle: String::new(), ..noted() };
    for noted in [noted(), by_name] {
        // Restored from a backup of the cluster's objects, it has another name; a record of an old version knows no handle.
        assert_eq!(of(&noted, &[cut_from("a", "pv-renamed", "h"), cut_from("b", "pv-old", "")]), needed(&["a", "b"]));
        assert_eq!(of(&noted, &[cut_from("a", "pv-new", "h-new"), cut_from("b", "pv", "")]), replaced::Fate::Reclaim);
    }
    for (fate, held) in [
        (needed(&["a"]), false),
        (needed(&["a", "b"]), true),
        (needed(&["b"]), true),
        (replaced::Fate::Keep, true),
        (replaced::Fate::Wait("a node has it".into()), true),
        (replaced::Fate::Reclaim, true),
        (replaced::Fate::Going, true),
        (replaced::Fate::Forget("it is gone".into()), false),
    ] {
        assert_eq!(holds(&fate, "a"), held, "{fate:?}");
    }
}

fn any_point() -> impl Strategy<Value = PointFacts> {
    let usable = prop_oneof![
        3 => Just(Usability::Usable),
        1 => Just(Usability::Unusable("gone".into())),
        1 => Just(Usability::Unknown),
    ];
    (0_i64..40, any::<bool>(), usable, 0_u8..8, 0_u8..8).prop_map(|(days, void, usable, deleting, holds)| PointFacts {
        void: void && days % 3 == 0,
        usable,
        deleting: deleting == 0,
        holds_volumes: holds == 0,
        ..point("", days)
    })
}

proptest! {
    #[test]
    fn the_last_way_back_never_expires(
        mut points in proptest::collection::vec(any_point(), 0..10),
        keep_last in 0_usize..5,
        days in 0_i64..30,
        needed in 0_usize..10,
        busy in any::<bool>(),
    ) {
        for (at, point) in points.iter_mut().enumerate() {
            point.name = format!("p{at}");
        }
        let mut requests = vec![request(&[&format!("p{needed}")], true, true)];
        let needed = format!("p{needed}");
        requests.extend(busy.then(|| request(&[], false, false)));
        let fates: BTreeMap<_, _> = retention(&points, policy(keep_last, days), at(NOW), &requests);
        let goes = |point: &PointFacts| matches!(fates[&point.name], Fate::Expire(_));
        let good = |point: &&PointFacts| !point.void && !point.deleting && point.usable == Usability::Usable;
        // As long as one could be restored, one still can.
        prop_assert!(!points.iter().any(|point| good(&point)) || points.iter().filter(good).any(|point| !goes(point)));
        let kept = points.iter().filter(good).filter(|point| !goes(point)).count();
        prop_assert!(kept >= keep_last.max(1).min(points.iter().filter(good).count()));
        for point in points.iter().filter(|point| goes(point)) {
            prop_assert!(!busy && point.name != needed);
            prop_assert!(!point.holds_volumes && !point.deleting);
            prop_assert!(at(NOW).duration_since(point.taken_at) >= policy(1, days).max_age, "{} is young", point.name);
            let newer = points.iter().filter(good).any(|other| (other.taken_at, &other.name) > (point.taken_at, &point.name));
            prop_assert!(point.void || newer, "{} goes, and nothing newer is proven", point.name);
        }
    }
}

proptest! {
    /// On storage whose snapshots live inside their volume.
    #[test]
    fn a_volume_and_the_copies_inside_it_go_together_and_none_waits_for_the_other(
        (points, noted_on) in (1_usize..6, 1_usize..4).prop_flat_map(|(points, volumes)| (
            proptest::collection::vec((0_i64..40, any::<bool>(), 0..volumes), points),
            proptest::collection::vec(0..points, volumes),
        )),
        keep_last in 1_usize..4,
    ) {
        let name = |at: usize| format!("p{at}");
        let mut there: BTreeMap<String, (PointFacts, usize)> = BTreeMap::new();
        for (at, (days, void, volume)) in points.iter().enumerate() {
            let void = *void && days % 3 == 0;
            there.insert(name(at), (PointFacts { void, ..point(&name(at), *days) }, *volume));
        }
        let mut volumes: BTreeMap<usize, String> = noted_on.iter().map(|at| name(*at)).enumerate().collect();
        let judge = |there: &BTreeMap<String, (PointFacts, usize)>, volume: usize| {
            let live = there.values().filter(|(point, _)| !point.void);
            let cut: Vec<CutFrom> = live.map(|(point, of)| cut_from(&point.name, "", &format!("h{of}"))).collect();
            let noted = ReplacedVolume { handle: format!("h{volume}"), ..noted() };
            let state = VolumeState { handle: noted.handle.clone(), ..released() };
            fate(&noted, at(10), "notes", Some(&state), None, &cut, at(NOW))
        };
        let holds_one = |there: &BTreeMap<String, (PointFacts, usize)>, volumes: &BTreeMap<usize, String>, point: &str| {
            volumes.iter().filter(|(_, on)| *on == point).any(|(volume, _)| holds(&judge(there, *volume), point))
        };
        for _ in 0..20 {
            let before = (there.clone(), volumes.clone());
            for volume in volumes.keys().copied().collect::<Vec<_>>() {
                if judge(&there, volume) == replaced::Fate::Reclaim {
                    prop_assert!(!there.values().any(|(point, of)| *of == volume && !point.void), "it took a copy along");
                    volumes.remove(&volume);
                }
            }
            for point in there.keys().cloned().collect::<Vec<_>>() {
                let facts: Vec<PointFacts> = there
                    .values()
                    .map(|(facts, _)| PointFacts { holds_volumes: holds_one(&there, &volumes, &point), ..facts.clone() })
                    .collect();
                let fates = retention(&facts, policy(keep_last, 7), at(NOW), &[]);
                if !matches!(fates[&point], Fate::Expire(_)) {
                    continue;
                }
                there.remove(&point);
                // What is noted on it goes with it.
                for volume in volumes.keys().copied().collect::<Vec<_>>() {
                    if volumes[&volume] == point {
                        prop_assert_eq!(judge(&there, volume), replaced::Fate::Reclaim, "its note would be lost");
                        volumes.remove(&volume);
                    }
                }
            }
            if before == (there.clone(), volumes.clone()) {
                break;
            }
        }
        for (volume, on) in &volumes {
            let replaced::Fate::Needed(by) = judge(&there, *volume) else {
                panic!("volume {volume} stays, and nothing needs it");
            };
            prop_assert!(by.iter().all(|point| there.contains_key(point)));
            let facts: Vec<PointFacts> = there.values().map(|(facts, _)| facts.clone()).collect();
            let expires = matches!(retention(&facts, policy(keep_last, 7), at(NOW), &[])[on], Fate::Expire(_));
            let others = |volume: usize| match judge(&there, volume) {
                replaced::Fate::Needed(by) => by.iter().any(|other| other != on),
                _ => false,
            };
            let held = volumes.iter().any(|(volume, noted)| noted == on && others(*volume));
            prop_assert!(!expires || held, "{on} and volume {volume} wait for each other");
        }
    }
}
