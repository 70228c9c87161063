// Package sweeper ends the sessions that are past their end and purges what is past its retention, whoever's they are. All
// replicas may do that; one at a time does, the leader.
//
// # Election
//
// The leader is who holds a lock in the store. The lock lasts for one TTL and is extended three times a TTL. Its value is the
// holder's incarnation and something random, so that neither another process nor an older term of the same one can extend
// or release it. Each uninterrupted reign is a [Term] with a number of its own, the epoch.
//
//	                 nobody holds the lock:
//	                 take it, take an epoch
//	+-----------+ ---------------------------> +----------+
//	| following |                              | leading  |--+ extended: trust
//	+-----------+ <--------------------------- +----------+<-+ moves on
//	  ^  looks every       Run's ctx done:         |
//	  |  fifth of a TTL,     resign                | trust window ended,
//	  |  and when a        lock lost:              | work failed, panicked:
//	  |  leader resigns      look again            | resign
//	  |                                            v
//	  |                one TTL later         +-----------+
//	  +------------------------------------- | standing  |
//	                                         | down      |
//	                                         +-----------+
//
// A leader that stops cleanly gives the lock back and says so, and the next one leads within a moment. One that dies is
// succeeded when its lock has expired, within a TTL and a fifth. One that could not do its work, or could not extend its
// lock, keeps out of the way for one TTL, for a replica that can.
//
// # Trust window
//
// A leader trusts its lock until
//
//	start of the last successful attempt + TTL - TTL/10
//
// by its own monotonic clock. It counts from the start of the attempt, because the store may have begun to count then; a
// slow answer does not lengthen it. The context of the leader's work is cancelled when the window ends, even while an
// extension hangs, and at once when an extension finds the lock gone. So at no instant do two replicas trust that they
// lead:
//
//	lock in the store    |=============================================|
//	attempt, answer    |-----|                                         :
//	trust of A         |=======================================|       :
//	                   :                                       :  TTL/10
//	earliest trust of B                                                |=======
//
// The tenth is for clocks that do not run at quite the same speed, and for what A has under way when it learns of its end.
//
// # Fencing
//
// Trust is not what keeps sessions safe. A process that was stopped goes on where it was, without a look at a clock; a
// script may arrive late. So every script of cleanup carries its term's epoch; each partition of the store remembers the
// greatest that it has seen, its fence, and refuses a lesser one. Epochs grow: each is greater than the one stored, than
// all that the replica knows of, and than the store's clock in milliseconds. When a failover rolls all that back, a
// leader that the fence refuses, and that holds the lock and is inside its trust window, takes an epoch above the fence
// ([Term.Raise]) and goes on; to any other the refusal means that its time is over.
//
// # A full store
//
// Taking the lock needs memory. When the store has none left and nobody leads, replicas clean up without the lock and
// under the stored epoch ([ElectionConfig].Caretaker), which is harmless: a newer leader's fence refuses them, and
// cleaning up twice ends no session that should live.
//
// # A store in parts
//
// Where some servers of a store are away, what the others hold is cleaned up all the same. A leader that cannot sweep most of
// the session space for three intervals resigns, for a replica that can.
//
// # What is not guaranteed
//
//   - That somebody leads. While the store is away nobody does, and up to a TTL and a fifth after a leader's death.
//   - That only one leads when the store loses the lock: a failover to a copy that had not heard of it, a flush, a
//     deletion by hand. Then a second leader may be elected while the first still trusts, until its next extension, a
//     third of a TTL later. The fence lets only the newer one clean.
//   - Trust across a suspended machine, whose monotonic clock may stand still, or across clocks that differ in speed by
//     more than a tenth. Again the fence is what holds.
//   - That followers hear of a resignation. They look anyway, every fifth of a TTL.
//
// All of it is an optimization: each script checks again what it ends, so sweeping twice is harmless.
package sweeper
