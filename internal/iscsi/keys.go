package iscsi

// Names of text keys (RFC 7143, 13 and 12.1.3).
const (
	KeyHeaderDigest        = "HeaderDigest"
	KeyDataDigest          = "DataDigest"
	KeyMaxConnections      = "MaxConnections"
	KeySendTargets         = "SendTargets"
	KeyTargetName          = "TargetName"
	KeyInitiatorName       = "InitiatorName"
	KeyTargetAlias         = "TargetAlias"
	KeyInitiatorAlias      = "InitiatorAlias"
	KeyTargetAddress       = "TargetAddress"
	KeyTargetPortalGroup   = "TargetPortalGroupTag"
	KeyInitialR2T          = "InitialR2T"
	KeyImmediateData       = "ImmediateData"
	KeyMaxRecv             = "MaxRecvDataSegmentLength"
	KeyMaxBurst            = "MaxBurstLength"
	KeyFirstBurst          = "FirstBurstLength"
	KeyTime2Wait           = "DefaultTime2Wait"
	KeyTime2Retain         = "DefaultTime2Retain"
	KeyMaxOutstandingR2T   = "MaxOutstandingR2T"
	KeyDataPDUInOrder      = "DataPDUInOrder"
	KeyDataSequenceInOrder = "DataSequenceInOrder"
	KeyErrorRecoveryLevel  = "ErrorRecoveryLevel"
	KeySessionType         = "SessionType"
	KeyTaskReporting       = "TaskReporting"
	KeyProtocolLevel       = "iSCSIProtocolLevel"
	KeyIFMarker            = "IFMarker"
	KeyOFMarker            = "OFMarker"
	KeyIFMarkInt           = "IFMarkInt"
	KeyOFMarkInt           = "OFMarkInt"
	KeyAuthMethod          = "AuthMethod"
	KeyCHAPAlgorithm       = "CHAP_A"
	KeyCHAPIdentifier      = "CHAP_I"
	KeyCHAPChallenge       = "CHAP_C"
	KeyCHAPName            = "CHAP_N"
	KeyCHAPResponse        = "CHAP_R"
)

// Values with a meaning in every negotiation (6.2).
const (
	valueYes           = "Yes"
	valueNo            = "No"
	valueNone          = "None"
	valueCRC32C        = "CRC32C"
	valueReject        = "Reject"
	valueIrrelevant    = "Irrelevant"
	valueNotUnderstood = "NotUnderstood"
	valueNormal        = "Normal"
	valueDiscovery     = "Discovery"
	valueCHAP          = "CHAP"
)

// IsVendorKey tells whether key is an extension (6.3: X-, X#, and the Y# and Z# of authentication and digests).
func IsVendorKey(key string) bool {
	if len(key) < 3 {
		return false
	}
	switch key[:2] {
	case "X-", "X#", "Y#", "Z#":
		return true
	}
	return false
}

// rule is how the result of a key follows from the two ends' values (6.2.1, 6.2.2).
type rule uint8

const (
	byList    rule = iota + 1 // the first of the offered values that the other end has too
	byAnd                     // Yes if both say so
	byOr                      // Yes if one says so
	byMin                     // the lower number
	byMax                     // the higher number
	declared                  // each end says its own; there is no answer
	refused                   // answered Reject
	alwaysNo                  // answered No
	wrongHere                 // not allowed during login
)

// keySpec is a line of the table of operational keys.
type keySpec struct {
	name      string
	rule      rule
	low, high int  // of a number
	discovery bool // relevant in a discovery session
}

// Indexes into operational.
const (
	kHeaderDigest = iota
	kDataDigest
	kInitialR2T
	kImmediateData
	kMaxRecv
	kMaxBurst
	kFirstBurst
	kMaxR2T
	kTime2Wait
	kTime2Retain
	kPDUInOrder
	kSequenceInOrder
	kErrorLevel
	kMaxConnections
	kOffered       // those above are offered, those below only answered
	kTaskReporting = iota - 1
	kProtocolLevel
	kIFMarker
	kOFMarker
	kIFMarkInt
	kOFMarkInt
	kSendTargets
	kTargetAddress
	kCount
)

const maxLength = MaxDataSegment

// specs returns the line of a key. It is a function for the table not to be a variable.
func specs(k int) keySpec {
	switch k {
	case kHeaderDigest:
		return keySpec{KeyHeaderDigest, byList, 0, 0, true}
	case kDataDigest:
		return keySpec{KeyDataDigest, byList, 0, 0, true}
	case kInitialR2T:
		return keySpec{KeyInitialR2T, byOr, 0, 0, false}
	case kImmediateData:
		return keySpec{KeyImmediateData, byAnd, 0, 0, false}
	case kMaxRecv:
		return keySpec{KeyMaxRecv, declared, 512, maxLength, true}
	case kMaxBurst:
		return keySpec{KeyMaxBurst, byMin, 512, maxLength, false}
	case kFirstBurst:
		return keySpec{KeyFirstBurst, byMin, 512, maxLength, false}
	case kMaxR2T:
		return keySpec{KeyMaxOutstandingR2T, byMin, 1, 65535, false}
	case kTime2Wait:
		return keySpec{KeyTime2Wait, byMax, 0, 3600, true}
	case kTime2Retain:
		return keySpec{KeyTime2Retain, byMin, 0, 3600, true}
	case kPDUInOrder:
		return keySpec{KeyDataPDUInOrder, byOr, 0, 0, false}
	case kSequenceInOrder:
		return keySpec{KeyDataSequenceInOrder, byOr, 0, 0, false}
	case kErrorLevel:
		return keySpec{KeyErrorRecoveryLevel, byMin, 0, 2, true}
	case kMaxConnections:
		return keySpec{KeyMaxConnections, byMin, 1, 65535, false}
	case kTaskReporting:
		return keySpec{KeyTaskReporting, byList, 0, 0, false}
	case kProtocolLevel:
		return keySpec{KeyProtocolLevel, byMin, 0, 31, false}
	case kIFMarker:
		return keySpec{KeyIFMarker, alwaysNo, 0, 0, true}
	case kOFMarker:
		return keySpec{KeyOFMarker, alwaysNo, 0, 0, true}
	case kIFMarkInt:
		return keySpec{KeyIFMarkInt, refused, 0, 0, true}
	case kOFMarkInt:
		return keySpec{KeyOFMarkInt, refused, 0, 0, true}
	case kSendTargets:
		return keySpec{KeySendTargets, wrongHere, 0, 0, true}
	}
	return keySpec{KeyTargetAddress, wrongHere, 0, 0, true}
}

func keyIndex(name string) int {
	for k := range kCount {
		if specs(k).name == name {
			return k
		}
	}
	return -1
}
