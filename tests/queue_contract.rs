//! The conformance suite of the queue: one test per clause of `queue::contract`, named after it, and a
//! random walk against a small model, stamped for every back-end.
//!
//! What the clauses leave open is compared between the back-ends, by walks on both side by side.
//!
//! A back-end is put through it by an implementation of [`harness::Store`] and a line at the end of
//! this file. After every test nothing may have leaked and every sum must be right.
//!
//! `QUEUE_CONTRACT_CASES` and `QUEUE_CONTRACT_STEPS` make the random walks more and longer,
//! `QUEUE_CONTRACT_SEED` takes them elsewhere; a failure tells the seed it had.

mod bench;
mod gcra;
mod harness;
mod machine;
mod model;
mod on_embedded;
mod on_redis;
mod steps;
mod under_seal;

mod clauses {
    pub(super) mod crashes;
    pub(super) mod handing;
    pub(super) mod intake;
    pub(super) mod leases;
    pub(super) mod letters;
    pub(super) mod operator;
    pub(super) mod rates;
    pub(super) mod repair;
    pub(super) mod seals;
    pub(super) mod time;
}

use std::time::Duration;

use bench::Bench;
use harness::Store;

/// A test that takes longer hangs.
const GUARD: Duration = Duration::from_secs(120);

/// Puts a fresh store on the bench, runs a test, and looks whether anything leaked.
fn check<S: Store>(test: impl AsyncFnOnce(&mut Bench<S>)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let run = async {
            let mut bench = Bench::<S>::new().await;
            test(&mut bench).await;
            bench.assert_sound().await;
        };
        tokio::time::timeout(GUARD, run).await.expect("it does not hang");
    });
}

/// Stamps tests for one back-end. A test that is not named here is dead code, which is an error.
macro_rules! stamp_tests {
    ($store:ty: $($part:ident { $($test:ident)+ })+) => {
        $($(
            #[test]
            fn $test() {
                super::check::<$store>(super::clauses::$part::$test);
            }
        )+)+
    };
}

/// The tests, and a random walk.
macro_rules! stamp {
    ($store:ty: $($tests:tt)+) => {
        stamp_tests! { $store: $($tests)+ }

        #[test]
        fn a_random_walk_agrees_with_the_model() {
            super::machine::walk::<$store>();
        }
    };
}

/// What holds of every store, in parts or not.
macro_rules! stamp_what_always_holds {
    ($store:ty) => {
        stamp! { $store:
            intake {
                q01_a_message_is_accepted_once_and_every_repeat_changes_nothing_but_the_count
                q01_an_identity_lives_for_the_retention_after_its_last_delivery_ended
                q02_what_was_accepted_survives_a_kill_of_everything
                q07_a_routing_ends_and_its_deliveries_appear_in_one_step
                q07_a_routing_in_hand_is_its_owners_past_its_deadline
            }
            leases {
                q04_work_is_leased_to_one_owner_until_its_lease_runs_out
                q04_a_lease_that_ran_out_is_still_its_owners_while_nobody_took_it_over
                q04_many_who_ask_at_once_never_get_the_same_work
                q04_an_owner_that_leaves_with_work_in_hand_loses_none_of_it
                q05_success_is_taken_from_anyone_and_failure_only_from_the_owner
                q05_who_lost_work_and_took_it_again_has_no_say_by_the_lease_it_lost
                q05_a_late_success_clears_the_twin_wherever_it_is
                q05_a_late_success_for_dead_work_is_noted_on_the_letter
                q05_an_expansion_is_taken_from_whoever_brings_it
                q06_work_ends_once
                q15_released_work_is_ready_at_once_as_if_it_had_not_been_handed_out
                q15_released_work_waits_for_its_paused_destination
            }
            time {
                q08_delayed_work_is_not_handed_out_before_it_is_due
                q08_a_routing_waits_for_its_time_too_and_a_due_time_may_be_past
                q09_overdue_work_is_never_handed_out_and_expires_wherever_it_waits
                q09_a_claim_that_meets_overdue_work_ends_it
                q09_a_message_that_was_kept_elsewhere_has_as_much_less_time
                q09_work_in_hand_is_its_owners_past_the_deadline
                q09_a_retry_or_pause_to_the_deadline_or_past_it_ends_the_work
            }
            rates {
                q11_a_pause_holds_its_destination_for_every_owner_and_costs_no_attempt
                q11_a_longer_pause_is_not_shortened_by_a_shorter_one
                q11_a_pause_beyond_the_deadline_of_its_bearer_holds_the_others
                q12_a_paused_destination_delays_only_its_own_work
                q12_a_busy_destination_delays_only_its_own_work_and_only_for_a_moment
            }
            crashes {
                q13_work_that_takes_its_worker_down_again_and_again_is_poison
                q13_a_hand_out_that_its_owner_outlives_does_not_count
                q13_services_that_die_are_counted_like_their_workers
                q13_attempts_pauses_renewals_and_releases_are_no_crashes
                q14_what_was_taken_over_may_have_been_sent
                q14_work_that_was_lost_waits_for_its_paused_destination
                q16_an_entry_that_cannot_be_read_is_buried_and_its_neighbours_do_not_notice
                q21_what_somebody_removed_is_made_anew_and_the_rest_is_handed_out_again
            }
            letters {
                q17_a_dead_letter_keeps_all_there_is_to_know
                q17_a_history_keeps_the_latest_32_attempts_and_counts_them_all
                q17_letters_vanish_after_the_retention
                q18_a_letter_goes_back_alone_as_if_new_and_twice_is_once
                q18_a_routing_that_died_is_routed_again
                q18_a_requeued_message_outlives_the_retention_of_its_first_life
                q18_a_purged_letter_is_forgotten_and_its_message_is_not
                q18_a_requeued_letter_waits_for_its_paused_destination
                q19_nothing_of_a_delivered_message_is_kept_but_what_became_of_it
            }
            repair {
                q23_a_sound_store_is_left_as_it_is
                q23_work_in_hand_stays_its_owners_through_a_repair
            }
            operator {
                q20_at_every_moment_the_books_agree_with_what_is_found
                q22_every_call_may_be_repeated
                status_tells_every_state
                dead_letters_are_filtered_newest_first_up_to_the_limit
                the_doorbell_rings_for_work_that_came_after_the_claim
                a_wait_ends_by_itself_and_may_be_dropped
            }
        }
    };
}

/// What holds within each part of a store, and not to the same number over all: capacity, the number of letters and
/// rates are shared out, order is within a part, one call of housekeeping or one round of sweeps does its bounded work
/// in each, and a call that asks for much may leave some to the next.
macro_rules! stamp_what_holds_of_one_part {
    ($store:ty) => {
        stamp_tests! { $store:
            handing {
                q24_what_is_handed_out_with_its_routing_is_leased_and_the_rest_is_ready
                q24_it_keeps_to_the_limits
                q24_overdue_work_is_not_handed_out_with_its_routing_and_nothing_behind_it_is_lost
                q24_it_overtakes_nobody_and_goes_to_no_paused_destination
                q24_who_vanishes_with_it_is_taken_over_from_and_who_gives_it_back_had_it_not
                q06_what_arrived_of_several_messages_in_one_batch_ends_each_once
            }
            intake {
                q03_beyond_its_capacity_a_store_takes_nothing_and_still_knows_duplicates
                q03_a_requeued_letter_makes_its_message_unfinished_again
                q07_a_route_may_lead_nowhere_or_to_512
            }
            leases {
                q15_released_work_goes_before_what_was_parked_behind_it
            }
            time {
                q09_a_deadline_that_passes_during_a_long_wait_is_found_behind_a_thousand_others
                q09_housekeeping_goes_through_large_messages_in_bounded_steps
            }
            rates {
                q10_a_lane_starts_with_its_burst_and_goes_on_at_its_rate
                q10_hand_outs_over_time_are_counted_exactly
                q10_each_destination_has_its_own_rate
                q10_the_rates_of_lane_and_destination_hold_together
                q10_what_is_not_handed_out_costs_nothing
                q12_a_destination_over_its_rate_delays_only_its_own_work
                q12_waiting_work_of_a_destination_goes_by_deadline_and_is_not_overtaken
                q12_a_lane_goes_oldest_first
            }
            crashes {
                q13_of_suspects_one_is_handed_out_at_a_time_and_the_others_do_not_pay_for_it
                q14_a_sweep_finds_all_that_ran_out_behind_a_thousand_that_did_not
            }
            letters {
                q17_the_number_of_letters_is_bounded_and_the_oldest_go_first
            }
            repair {
                q23_what_was_broken_by_hand_is_found_and_put_right_and_all_is_delivered
            }
        }
    };
}

macro_rules! contract_for {
    ($($back_end:ident: $store:ty;)+) => {$(
        mod $back_end {
            stamp_what_always_holds! { $store }
            stamp_what_holds_of_one_part! { $store }
        }
    )+};
}

contract_for! {
    embedded: crate::queue_contract::on_embedded::Embedded;
    redis: crate::queue_contract::on_redis::OnRedis;
    sealed_embedded: crate::queue_contract::under_seal::UnderSeal<crate::queue_contract::on_embedded::Embedded>;
    sealed_redis: crate::queue_contract::under_seal::UnderSeal<crate::queue_contract::on_redis::OnRedis>;
}

mod redis_in_shards {
    stamp_what_always_holds! { crate::queue_contract::on_redis::InShards<3> }
}

macro_rules! seals_for {
    ($($back_end:ident: $store:ty;)+) => {$(
        mod $back_end {
            stamp_tests! { crate::queue_contract::under_seal::UnderSeal<$store>:
                seals {
                    q16_what_no_key_opens_is_undecryptable_and_its_neighbours_do_not_notice
                    q18_an_undecryptable_letter_goes_back_once_its_key_is_there
                    a_key_is_changed_without_losing_what_the_old_one_sealed
                    what_was_changed_or_moved_is_undecryptable
                    what_was_stored_before_there_were_keys_is_read_unless_it_is_forbidden
                    a_sealed_message_takes_no_recipient_that_is_not
                    what_a_sweep_takes_over_is_opened_too
                    people_are_shown_masked_to_who_has_the_key_and_not_at_all_to_others
                }
            }
        }
    )+};
}

seals_for! {
    seals_embedded: crate::queue_contract::on_embedded::Embedded;
    seals_redis: crate::queue_contract::on_redis::OnRedis;
}

#[test]
fn both_back_ends_tell_the_same() {
    machine::walk_side_by_side::<on_embedded::Embedded, on_redis::OnRedis>();
}
