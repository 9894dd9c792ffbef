// Package treesim proves the tree of a share: several clients work in one share at once while its leaders die, are cut off, and
// go on late; every answer must fit one order of all calls (porcupine), the final tree and bytes among them.
//
// It runs the real share (nfs/share) and the real tree (internal/filetree) over a model of the mirror and of the catalog, within a
// bubble of virtual time. What others have to guarantee to the share is the model's (world.go): an acknowledged write is durable, one
// that is not may be there in part; nothing of a former epoch is executed; commands have one order, and their outcome may be
// unknown. Each of these can be broken on purpose (breaks.go), and every break must be found. The mirror and the catalog themselves
// are systemtest/sim's.
//
// A seed decides the load and the faults; the order in which goroutines run is the scheduler's, so that a failure may need several
// tries to come again.
package treesim
