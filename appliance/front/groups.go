package front

import "pmsapp/target/scsi"

// Groups are the target port groups of a volume as the catalog knows them, at ports in their order: that of the node that serves it is active,
// those of the others stand by; while none serves it, that of the leader is on its way. The virtual address is where the volume is
// served. serves and leader are 0 where there is none.
func Groups(ports []uint16, leader, serves uint16) []scsi.PortGroup {
	all := make([]scsi.PortGroup, len(ports))
	for i, p := range ports {
		all[i] = scsi.PortGroup{ID: p, Access: scsi.StandingBy}
		switch {
		case serves != 0 && (p == serves || p == VirtualGroup):
			all[i].Access = scsi.Optimized
		case serves == 0 && (p == leader || p == VirtualGroup):
			all[i].Access = scsi.Transitioning
		}
	}
	return all
}
