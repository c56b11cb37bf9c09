package naming

// The words are those of boats and the water they go on.
const adjectives = `able afloat agile anchored ardent beamy becalmed bold bright briny brisk buoyant calm
cheerful clear clever coastal cosy curious daring deft dewy eager early easterly easy fair faithful fleet
foggy fresh frosty gallant gentle glad glossy golden hardy hearty honest humble jaunty jolly keen kind leeward
lively loyal lucky mellow merry mild misty modest nautical neat nimble northerly oaken offshore patient
placid plucky polished proud quick quiet rapid ready restful rowing rugged salty seaworthy serene sharp
shipshape silent silver sleek smooth snug solid southerly spry stately staunch steady stout sturdy sunny swift
tarred tidal tidy tranquil trim trusty upright valiant vivid watchful waxed weathered westerly windward wise
woven zesty`

const nouns = `albatross anchor barge barque beacon bollard boom bosun bowline bowsprit brig buoy canal canoe capstan
caravel catboat cleat clinker clipper cockle coracle cove current curlew cutter delta dinghy dory drift eddy
eider estuary fathom felucca fender ferry fjord foghorn galley gannet gig gondola gull gunwale halyard harbour
hawser helm heron hull inlet islet jetty jib junk kayak keel ketch kingfisher knot lagoon lantern lighthouse
lock lugger mainsail mariner marlin mast mizzen mooring narwhal oar oarlock osprey otter outrigger paddle pelican
petrel pier pilot pinnace plover porthole prow puffin quay raft reef rigging rope rudder sail sampan schooner
scull sculler seal sextant shoal shore skerry skiff skipper sloop spar spinnaker sprit starboard stern strake
swan tackle teal tern thwart tide tiller topsail transom trawler tugboat wake weir whaler wharf wherry yawl`
