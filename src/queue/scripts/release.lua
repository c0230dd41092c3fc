#!lua flags=allow-oom
-- Takes back work that was not started; it is ready at once, as if it had not been handed out.
--
-- KEYS[1], ARGV[1..4]  see ground.lua
-- ARGV[5]    the owner
-- ARGV[6..]  for each: message id, index, name of the hand-out
-- Result: how many were still the owner's
-- Repeating it finds none that are.

local owner = ARGV[5]

local function release(id, index, name)
  local piece = read_piece(id, index)
  if not piece then return 0 end
  local entry, number = entry_held_by(owner, piece.lane, name)
  if not entry or not is_at(piece, entry) then return 0 end
  -- A group reads an entry once, so it becomes a new one, and what was counted goes with it.
  piece.handed = math.max(0, piece.handed + number - 1 - excused_at(piece, entry))
  leave_place(piece)
  make_ready(piece, true)
  tell_if_overdue(piece)
  return 1
end

local released = 0
for at = 6, #ARGV, 3 do
  released = released + release(ARGV[at], tonumber(ARGV[at + 1]), ARGV[at + 2])
end
return released
