package iscsi

// Serial number arithmetic of 32 bits (RFC 1982), by which CmdSN, StatSN, DataSN and R2TSN are compared.

// SNLess tells whether a comes before b. Of two numbers that are 2^31 apart neither does.
func SNLess(a, b uint32) bool { return a != b && b-a < 1<<31 }

// SNLessEq tells whether a comes before b or is b.
func SNLessEq(a, b uint32) bool { return b-a < 1<<31 }

// SNInWindow tells whether sn is one of exp, exp+1, ... max; max = exp-1 is an empty window.
func SNInWindow(sn, exp, max uint32) bool { return SNLessEq(exp, sn) && SNLessEq(sn, max) }
