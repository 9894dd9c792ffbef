// Package share is one share open on the node that serves it: an nfs.Share made of the tree that the catalog keeps
// (internal/filetree) and the volume that has the files' bytes (block.Device). DESIGN.md has the argument why no
// acknowledged byte is lost, no file shows another's bytes, nothing leaks and no time goes back.
package share
