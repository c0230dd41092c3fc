//! The master changes, by death and by order, while texts come in.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::FAST;
use crate::support::chance::is_chaos;
use crate::support::cluster::{Cluster, MASTERS};
use crate::support::installation::{Installation, LOOK, Program, on_redis};
use crate::support::ledger::{Allowed, Ledger};
use crate::support::provider::Provider;
use crate::support::sentinels::Guarded;
use crate::support::waiting::until;

/// The longest it may take until texts are taken again once there is a master that may take them: a post that is not
/// answered is given up after ten seconds, and the machine may have other work.
const RESUMED: Duration = Duration::from_secs(30);

/// Brings one text until it is taken.
async fn until_taken(ledger: &Ledger, installation: &Installation, ingress: &Program, number: u32) {
    let began = Instant::now();
    while !ledger.post(installation.poster(), ingress.ingress, number).await {
        assert!(began.elapsed() < RESUMED, "there is a master, and nothing is taken");
        tokio::time::sleep(LOOK).await;
    }
}

/// `smsctl doctor --repair` leaves a sound store.
fn repair(installation: &Installation) {
    let repaired = installation.smsctl(&["doctor", "--repair"]);
    let page = String::from_utf8_lossy(&repaired.stdout);
    println!("{page}");
    assert!(repaired.status.success(), "{page}");
}

#[tokio::test]
async fn a_master_that_dies_takes_along_what_no_replica_had_and_nothing_else() {
    let provider = Provider::start();
    let mut guarded = Guarded::start().await;
    let installation = Installation::redis(&provider, &guarded.url(), FAST);
    let ingress = installation.start("sms-ingress").await;
    let _workers = [installation.start("sms-worker").await, installation.start("sms-worker").await];
    let (ledger, poster) = (Ledger::new(), installation.poster());
    ledger.post_all(poster, &[ingress.ingress], 0..40, 8).await;

    // The replica has these. It is kept from hearing more, and what is taken now is on the master alone.
    let [master, replica] = &guarded.servers;
    replica.catch_up_with(master).await;
    master.command("ACL SETUSER default -psync -sync");
    master.command("CLIENT KILL TYPE replica");
    let before = ledger.taken();
    ledger.post_all(poster, &[ingress.ingress], 40..80, 8).await;
    let alone = ledger.taken() - before;
    ledger.fault();
    guarded.lose_master().await;
    until_taken(&ledger, &installation, &ingress, 80).await;
    ledger.post_all(poster, &[ingress.ingress], 81..120, 8).await;

    // The old one comes back with what nobody else has, and is told that it is a replica.
    let [old, new] = &mut guarded.servers;
    old.restart();
    old.follow(new).await;
    ledger.post_all(poster, &[ingress.ingress], 120..140, 8).await;
    repair(&installation);
    // What was sent when the replica heard nothing more is sent again where the message is known.
    let allowed = Allowed { lost: alone, duplicates: 80 * 3, ..Allowed::default() };
    let figures = ledger.check(&installation, &provider, allowed).await;
    figures.show("failover", "the master killed with 40 messages that no replica had (`process`)");
    assert_eq!(figures.messages + figures.lost, 140);
    assert!(figures.lost > 0, "the replica had everything: there was no fault");
}

#[tokio::test]
async fn a_master_that_has_to_step_down_is_left_and_loses_nothing_that_a_replica_had() {
    let rounds: usize = if is_chaos() { 4 } else { 1 };
    let provider = Provider::start();
    let guarded = Guarded::start().await;
    let queue = format!("{}\ndurability = \"replica\"", on_redis(&guarded.url()));
    let installation = Installation::with_queue(&provider, &queue, FAST);
    let mut ingress = installation.start("sms-ingress").await;
    let mut worker = installation.start("sms-worker").await;
    let ledger = Ledger::new();
    for round in 0..rounds {
        let first = u32::try_from(round).unwrap() * 100;
        let during = {
            let (ledger, poster, door) =
                (Arc::clone(&ledger), installation.poster().clone(), ingress.ingress);
            tokio::spawn(async move { ledger.post_all(&poster, &[door], first..first + 90, 4).await })
        };
        let enough = ledger.taken() + 20;
        while ledger.taken() < enough {
            tokio::time::sleep(LOOK).await;
        }
        ledger.fault();
        guarded.demote().await;
        let new = (round + 1) % 2;
        guarded.wait_for_master(new).await;
        // It is told some seconds later. Until then it takes what it is brought, and nobody else has that.
        let [first_server, second_server] = &guarded.servers;
        let new_master = if new == 0 { first_server } else { second_server };
        until("the old master is a replica", || {
            new_master.command("INFO replication").contains("state=online")
        })
        .await;
        until_taken(&ledger, &installation, &ingress, first + 90).await;
        during.await.expect("all texts are taken");
    }
    repair(&installation);
    // What the old master was told of deliveries in its last seconds is forgotten.
    let allowed = Allowed { duplicates: rounds * 91 * 3, ..Allowed::default() };
    let figures = ledger.check(&installation, &provider, allowed).await;
    figures.show("demotion", "`SENTINEL FAILOVER` under load (`replica`)");
    assert_eq!(figures.messages, rounds * 91);
    // Nobody is still at the server that is a replica now.
    for program in [&mut ingress, &mut worker] {
        installation.wait_for_readiness(program, 200).await;
        assert_eq!(program.stop(), Some(0));
    }
}

#[tokio::test]
async fn a_master_of_a_cluster_that_dies_is_replaced_and_nothing_that_its_replica_had_is_lost() {
    let provider = Provider::start();
    let mut cluster = Cluster::start_with_replicas().await;
    let queue = format!(
        "backend = \"redis\"\nurl = \"{}\"\nshards = {MASTERS}\ndurability = \"replica\"",
        cluster.url()
    );
    let installation = Installation::with_queue(&provider, &queue, FAST);
    let mut ingress = installation.start("sms-ingress").await;
    let mut workers = [installation.start("sms-worker").await, installation.start("sms-worker").await];
    let ledger = Ledger::new();
    let during = {
        let (ledger, poster, door) = (Arc::clone(&ledger), installation.poster().clone(), ingress.ingress);
        tokio::spawn(async move { ledger.post_all(&poster, &[door], 0..200, 4).await })
    };
    while ledger.taken() < 60 {
        tokio::time::sleep(LOOK).await;
    }
    let (_, master) = cluster.place_of(0);
    ledger.fault();
    cluster.lose(master).await;
    // Until the new master has a replica of its own, the level that is asked for cannot be reached.
    cluster.nodes[master].restart();
    let new_master = &cluster.nodes[master + MASTERS];
    until("the old master is its replica", || {
        new_master.command("INFO replication").contains("state=online")
    })
    .await;
    until_taken(&ledger, &installation, &ingress, 200).await;
    during.await.expect("all texts are taken");
    // What the old master was told of deliveries in its last moments is forgotten, in one shard.
    let allowed = Allowed { duplicates: 201 * 3, ..Allowed::default() };
    let figures = ledger.check(&installation, &provider, allowed).await;
    figures.show("cluster", "the master of a shard killed under load (`replica`)");
    assert_eq!(figures.messages, 201);
    for program in workers.iter_mut().chain([&mut ingress]) {
        assert_eq!(program.stop(), Some(0));
    }
}
