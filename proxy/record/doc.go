// Package record keeps a recording of sessions' messages, off the way of the requests that it records.
//
//	proxy --- Record ---> queue, bounded ---- Run, every 100 ms ----> redact ---> cluster.FrameStore
//	                        |                                           |
//	                        +-> full: dropped, counted                  +-> store away: dropped, counted
//
// Guarantees:
//
//   - [Recorder.Record] never waits: not for the store, not for redaction. What does not fit is dropped and counted.
//   - A session's frames of one replica are stored in the order of their recording. Several replicas store theirs independently.
//   - Payloads are redacted in this process, before the store hears of them. What is not valid JSON is not recorded as a payload.
//   - HTTP headers and URLs are not recorded at all, so that session tokens and what clients and servers prove themselves with
//     cannot be; where a message repeats such a secret that [Entry] names, the text it is in is redacted.
//   - A nil Recorder records nothing, at no cost.
//
// What is not guaranteed: that every message is recorded. A replica that is killed loses what it had not written, about 100 ms.
package record
