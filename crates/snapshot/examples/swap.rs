//! Takes a claim back to a snapshot of itself, on the cluster of the kubeconfig, by the calls of the port in their safe order.
//!
//! `cargo run -p windlass-snapshot --example swap -- NAMESPACE CLAIM take` cuts a snapshot; after whatever happened to the data,
//! `... restore` puts the claim back to it. Nothing may mount the claim meanwhile. Both leave their objects behind.
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::time::{Duration, Instant};

use kube::Client;
use upgrade_core::Failure;
use upgrade_core::ports::{
    AppRef, Aside, ClaimFacts, ProtectedVolume, ReclaimPolicy, SnapshotManager, SnapshotRequest,
};
use windlass_snapshot::CsiSnapshots;

const OPERATION: &str = "example";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(namespace), Some(claim), Some(action)) = (args.next(), args.next(), args.next()) else {
        return Err("expected: NAMESPACE CLAIM take|restore".into());
    };
    let port = CsiSnapshots::new(Client::try_default().await?);
    let app = AppRef { namespace: namespace.clone(), name: "example".into(), uid: String::new() };
    let named = [(claim.clone(), "named".to_owned())];
    let facts = port.claims(&app, &namespace, &named, None).await?.pop().ok_or("no facts")?;
    if !facts.refusals.is_empty() {
        return Err(format!("refused: {:?}", facts.refusals).into());
    }
    let began = Instant::now();
    match action.as_str() {
        "take" => take(&port, &facts, began).await?,
        "restore" => restore(&port, &facts, began).await?,
        _ => return Err("expected: take or restore".into()),
    }
    Ok(())
}

fn say(began: Instant, what: &str) {
    println!("{:>6} ms  {what}", began.elapsed().as_millis());
}

fn snapshot_name(facts: &ClaimFacts) -> String {
    format!("{}-example", facts.name)
}

async fn take(port: &CsiSnapshots, facts: &ClaimFacts, began: Instant) -> Result<(), Failure> {
    let old = ProtectedVolume { name: facts.volume.clone(), uid: facts.volume_uid.clone() };
    port.set_policy(&old, ReclaimPolicy::Retain).await?;
    say(began, &format!("volume {} is on Retain", old.name));
    let request = SnapshotRequest {
        namespace: facts.namespace.clone(),
        name: snapshot_name(facts),
        claim: facts.name.clone(),
        claim_uid: facts.uid.clone(),
        class: facts.snapshot_class.clone().unwrap_or_default(),
        operation: OPERATION.into(),
        restore_point: OPERATION.into(),
    };
    port.snapshot(&request).await?;
    port.snapshot(&request).await?;
    loop {
        let state = port.snapshot_state(&facts.namespace, &request.name).await?;
        if let Some(state) = state.filter(|state| state.ready && state.mismatch.is_none()) {
            let content = state.content.clone().unwrap_or_default();
            port.set_content_policy(&content, ReclaimPolicy::Retain).await?;
            say(
                began,
                &format!(
                    "snapshot {} is ready, cut at {:?}, content {content} is on Retain",
                    request.name, state.cut_at
                ),
            );
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn restore(port: &CsiSnapshots, facts: &ClaimFacts, began: Instant) -> Result<(), Failure> {
    let namespace = facts.namespace.as_str();
    let state = port.snapshot_state(namespace, &snapshot_name(facts)).await?;
    let state = state.ok_or_else(|| Failure::permanent("example", "there is no snapshot: run `take` first"))?;
    let aside = Aside {
        namespace: namespace.into(),
        helper: format!("{}-aside", facts.name),
        snapshot: snapshot_name(facts),
        claim: facts.name.clone(),
        manifest: facts.manifest.clone(),
        size: state.restore_size.unwrap_or(0).max(facts.capacity),
        operation: OPERATION.into(),
    };
    port.restore_aside(&aside).await?;
    port.restore_aside(&aside).await?;
    let helper = loop {
        let helper = port.claim(namespace, &aside.helper).await?;
        if let Some(helper) = helper.filter(|helper| helper.phase == "Bound") {
            break helper;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let name = helper.volume.clone().unwrap_or_default();
    let new = port.volume(&name).await?;
    let new = new.map(|new| (ProtectedVolume { name: name.clone(), uid: new.uid }, new.handle));
    let (new, handle) = new.ok_or_else(|| Failure::permanent("example", "the restored volume is gone"))?;
    port.set_policy(&new, ReclaimPolicy::Retain).await?;
    say(began, &format!("restored aside on volume {name}, handle {handle} (the old one has {})", facts.handle));

    port.drop_claim(namespace, &aside.helper, &helper.uid).await?;
    loop {
        match port.reserve(&new, namespace, &facts.name).await {
            Ok(()) => break,
            Err(failure) if failure.retryable => say(began, &format!("{}: {failure}", failure.code)),
            Err(failure) => return Err(failure),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    say(began, &format!("volume {name} is reserved for claim {}", facts.name));
    port.drop_claim(namespace, &facts.name, &facts.uid).await?;
    while port.claim(namespace, &facts.name).await?.is_some() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let old = port.volume(&facts.volume).await?.map(|old| format!("{:?}, {}", old.reclaim_policy, old.phase));
    say(
        began,
        &format!("claim {} is gone; its old volume {} is {}", facts.name, facts.volume, old.unwrap_or_default()),
    );
    port.recreate(namespace, &facts.name, &facts.manifest, &name, OPERATION).await?;
    port.recreate(namespace, &facts.name, &facts.manifest, &name, OPERATION).await?;
    loop {
        let claim = port.claim(namespace, &facts.name).await?;
        if claim.is_some_and(|claim| claim.phase == "Bound" && claim.volume.as_deref() == Some(&name)) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    say(began, &format!("claim {} is bound to volume {name}", facts.name));
    Ok(())
}
