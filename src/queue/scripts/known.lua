#!lua flags=allow-oom
-- Says which messages are known, where memory is too short to accept any, and counts them as duplicates.
-- Nothing is stored that was not there before.
--
-- KEYS[1], ARGV[1..4]  see ground.lua
-- ARGV[5..]  message ids
-- Result: 1 (known) or 0 for each, in order

local answers, duplicates = {}, 0
for at = 5, #ARGV do
  local known = is_known(ARGV[at])
  if known then duplicates = duplicates + 1 end
  answers[#answers + 1] = known and 1 or 0
end
if duplicates > 0 then tally('duplicates', duplicates) end
return answers
