// Package scsi is the device server of hosts' LUNs: SCSI commands (SPC-4, SBC-3) over block.Device.
//
// An LU is a volume as hosts see it; its identity comes from the volume's and is the same from every node. It serves a
// device, or stands by: then it is there, tells who it is, and is NOT READY. A Target is a name with a LUN map, and makes
// a Nexus for each session.
//
// Types, codes and the command table are gotgt's, and with the table the commands that it carries out rightly; every
// other entry is replaced (table.go). Commands that move blocks go around it (io.go).
//
// A command but EXTENDED COPY (copy.go) submits all its block requests within Execute. So when the connection layer has seen Execute return, the
// order of what the command does against all later commands is settled, whether or not somebody waits for its answer:
// that is how an abort satisfies invariant 4 (see block.Device).
package scsi
